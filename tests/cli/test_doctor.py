"""The doctor shows what is there, finds faults that are there, and says what to do about them."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import matsign
from matsign.backends.devices import devices
from matsign.cli import doctor, machine, self_test
from matsign.cli.app import app

SOUND = {
    "devices": [{"name": "cpu", "description": ""}],
    "outcomes": [],
    "planned": 0,
    "exit_code": 0,
    "error": "",
}


@pytest.fixture
def run(monkeypatch):
    """Runs the doctor with these outcomes of the self-tests in place of new processes."""

    def call(*words, **tests):
        monkeypatch.setattr(machine, "is_installed", tests.__contains__)
        monkeypatch.setattr(doctor, "test", tests.__getitem__)
        return CliRunner().invoke(app, ["doctor", *words])

    return call


@pytest.mark.slow
def test_a_broken_library_is_a_fault_and_the_others_are_tested(tmp_path, monkeypatch):
    """With processes: NumPy's is sound, and the one that imports a broken library ends with its error."""
    monkeypatch.setattr(doctor, "LIBRARIES", ("numpy", "torch"))
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(
        "raise ImportError('libcudart.so.99: cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "numpy on cpu" in done.stdout
    assert "msign" in done.stdout
    (fault,) = (line for line in done.stdout.splitlines() if line.startswith("FAULT: "))
    assert "torch failed: ImportError: libcudart.so.99" in fault
    assert "python -m pip install --force-reinstall torch" in fault
    assert done.stdout.rstrip().endswith("1 fault found")


def test_the_text_names_versions_blas_and_settings(run, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/home/somebody/dump")
    done = run(numpy=SOUND)
    assert done.exit_code == 0, done.output
    for word in (f"matsign {matsign.__version__}", f"numpy {np.__version__}", "BLAS of numpy: ", "BLAS of scipy: "):
        assert word in done.stdout
    assert "JAX_ENABLE_X64=1" in done.stdout
    assert "--xla_dump_to=~/dump" in done.stdout
    assert "torch: not installed" in done.stdout
    assert done.stdout.rstrip().endswith("no fault found")
    assert "hunter2" not in done.stdout
    content = json.loads(run("--json", numpy=SOUND).stdout)
    assert content["faults"] == []
    assert content["versions"]["matsign"] == matsign.__version__


OUTCOME = {
    "device": "cuda:0",
    "function": "mcsgn",
    "kind": "general",
    "dtype": "float32",
    "n": 8,
    "method": "newton",
    "backward_error": 1e-8,
    "seconds": 0.1,
    "fault": "",
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"planned": None, "exit_code": None},
            "torch did not answer for 60 seconds, before its first call; look whether",
        ),
        ({"planned": None, "exit_code": -4, "outcomes": [OUTCOME]}, "ended by signal 4, after mcsgn (float32, n = 8)"),
        ({"planned": 1, "outcomes": [OUTCOME | {"fault": "backward error 1e-2"}]}, "torch on cuda:0: mcsgn, general, "),
    ],
)
def test_faults_say_what_to_do(run, change, said):
    done = run(numpy=SOUND, torch=SOUND | change)
    assert done.exit_code == 1
    (fault,) = (line for line in done.stdout.splitlines() if line.startswith("FAULT: "))
    assert said in fault
    assert "pip install" in fault or "please report it with this text" in fault


def test_versions_that_are_too_old_and_too_many_threads(run, monkeypatch):
    monkeypatch.setattr(machine, "required_versions", lambda: [("numpy", "99.1"), ("scipy", "1.2"), ("rich", "13.0.0")])
    monkeypatch.setattr(machine, "blas", lambda: [{"of": "numpy", "name": "OpenBLAS", "threads": 10**6}])
    done = run(numpy=SOUND | {"planned": 3})
    assert done.exit_code == 1
    assert f'numpy {np.__version__} is older than 99.1: python -m pip install --upgrade "numpy>=99.1"' in done.stdout
    assert "1 fault found" in done.stdout
    assert "note: the BLAS of numpy runs 1000000 threads" in done.stdout
    assert "note: numpy: 3 of 3 calls were not tried, for lack of time" in done.stdout


def test_the_self_test_finds_a_wrong_answer_and_names_the_method(monkeypatch):
    (cpu,) = devices("numpy")
    for case in self_test.CASES:
        found = self_test.run(case, cpu, "float64", 8, np.inf)
        assert not found.fault
        allowed = case.function.spec.parameters.choices["method"]
        assert found.method in allowed or found.method == self_test.UNNAMED
    positive = next(x for x in self_test.CASES if x.kind == "positive")
    assert self_test.run(positive, cpu, "float64", 8, np.inf).method == "eigh"
    assert self_test.run(positive, cpu, "float64", 8, 0.0).method == ""
    wrong = cpu._replace(put=lambda x: x + (x == 3))
    assert "whole numbers is wrong" in self_test.run(positive, wrong, "float32", 8, np.inf).fault
    assert len(list(self_test.outcomes("numpy", [cpu], seconds=0))) == 0
