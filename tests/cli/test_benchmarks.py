"""The command lines of the benchmarks: with --help or an error they measure and write nothing."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(p.stem for p in FOLDER.glob("*.py") if "def main" in p.read_text())


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a script as Python does, in an empty folder, which must stay empty."""
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    monkeypatch.chdir(tmp_path)

    def call(name, *words):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        with pytest.raises(SystemExit) as end:
            script.main()
        assert not list(tmp_path.iterdir())
        return end.value.code

    return call


def test_every_script_is_one_of_these():
    assert {"models", "riccati", "gpu"} <= set(SCRIPTS)
    assert {p.stem for p in FOLDER.glob("*.py")} - set(SCRIPTS) == {"arguments"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_is_all_that_help_does(run, name, capsys):
    assert run(name, "--help") == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: ")
    first = (FOLDER / f"{name}.py").read_text().partition("\n")[0].strip('"')
    assert first in " ".join(said.split())


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("words", [["--hlep"], ["help"], ["-x"], ["none/out.json"], ["a.json", "b.json"], ["."]])
def test_a_mistake_is_an_error_before_anything_is_measured(run, name, words, capsys):
    assert run(name, *words) == 2
    assert "error: " in capsys.readouterr().err


def test_models_come_from_a_folder_that_has_some(run, tmp_path_factory, capsys):
    assert run("models", "none") == 2
    assert "there is no folder none" in capsys.readouterr().err
    assert run("models", str(tmp_path_factory.mktemp("empty"))) == 2
    assert "there is no .mat file" in capsys.readouterr().err
