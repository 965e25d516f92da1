"""Types in the code of a user: mypy and pyright report the wrong uses in typing/wrong.py, and nothing in typing/right.py."""

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import matsign

ROOT = Path(__file__).parents[1]
RIGHT, WRONG = (ROOT / "tests" / "typing" / f"{name}.py" for name in ("right", "wrong"))
COMPILES = {"in_jax", "transformations"}


def expected(checker):
    """Line numbers and error codes in the comments of wrong.py."""
    codes = {}
    for number, line in enumerate(WRONG.read_text().splitlines(), 1):
        if comment := re.search(r"  # ([\w-]+), ([\w-]+)$", line):
            codes[number] = comment[1 + ("mypy", "pyright").index(checker)]
    assert len(codes) > 40
    return {number: code for number, code in codes.items() if code != "-"}


def output(*command):
    environment = os.environ | {"MYPYPATH": str(ROOT / "src"), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def compare(found, checker):
    """The errors found, (file, line, code), are those of the comments in wrong.py."""
    assert [error for error in found if Path(error[0]).name != WRONG.name] == []
    assert {line: code for _, line, code in found} == expected(checker)


@pytest.mark.slow
def test_mypy():
    """With the settings, and so with the cache, of `make types`."""
    pytest.importorskip("mypy")
    lines = output("mypy", "--output", "json", str(RIGHT), str(WRONG)).splitlines()
    errors = [e for e in map(json.loads, lines) if e["severity"] == "error"]
    compare([(e["file"], e["line"], e["code"]) for e in errors], "mypy")


@pytest.mark.slow
def test_pyright():
    pytest.importorskip("basedpyright")
    config = ROOT / "tests" / "typing" / "pyrightconfig.json"
    report = json.loads(output("basedpyright", "-p", str(config), "--pythonpath", sys.executable, "--outputjson"))
    errors = [e for e in report["generalDiagnostics"] if e["severity"] == "error"]
    compare([(e["file"], e["range"]["start"]["line"] + 1, e["rule"]) for e in errors], "pyright")


@pytest.mark.parametrize("name", sorted(name for name in matsign.__all__ if hasattr(getattr(matsign, name), "spec")))
def test_no_public_function_is_untyped(name):
    f = getattr(matsign, name)
    signature, arrays = inspect.signature(f), f.spec.parameters.arrays
    assert "T" in re.findall(r"\w+", signature.return_annotation)
    assert {signature.parameters[x].annotation for x in arrays} <= {
        "ArrayLike[T]",
        "OptionalArrayLike[T]",
        "VectorLike[T]",
        "OptionalVectorLike[T]",
    }


@pytest.mark.slow
def test_right_uses_run():
    """All but those for which JAX compiles."""
    for name in ("dask", "jax", "optax", "pandas", "torch", "xarray"):
        pytest.importorskip(name)
    spec = importlib.util.spec_from_file_location("right", RIGHT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    uses = [f for name, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == "right"]
    uses = [f for f in uses if f.__name__ not in COMPILES and not inspect.signature(f).parameters]
    assert len(uses) >= 9
    for use in uses:
        use()
