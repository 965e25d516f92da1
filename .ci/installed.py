"""A smoke test of an installed matsign: run it with the Python of an environment that has it, in an empty folder.

python -I .ci/installed.py
"""

import importlib.metadata
import importlib.resources
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

OTHERS = ("torch", "jax", "jaxlib", "dask", "xarray", "matplotlib", "typer", "rich")


def run(*words, code=0):
    """The standard output of the script `matsign`."""
    script = Path(sysconfig.get_path("scripts")) / "matsign"
    done = subprocess.run([script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == code, (words, done.returncode, done.stderr)
    return done.stdout


def check_import():
    """It comes from this environment, has its types, computes, and imports no other array library."""
    import matsign

    assert Path(matsign.__file__).is_relative_to(sys.prefix), matsign.__file__
    assert importlib.metadata.version("matsign") == matsign.__version__
    assert importlib.resources.files("matsign").joinpath("py.typed").is_file()
    value, certificate = matsign.certify(matsign.mcsgn)([[4.0, 3.0], [0.0, -2.0]])
    assert certificate.converged
    assert abs(value - [[1, 1], [0, -1]]).max() < 1e-14
    loaded = {name.partition(".")[0] for name in sys.modules}.intersection(OTHERS)
    assert not loaded, f"import matsign imports {', '.join(sorted(loaded))}"


def check_command_line():
    """The script, the doctor and the tour, with the data that they read."""
    assert run("--version").startswith("matsign ")
    assert json.loads(run("mcsgn", "-2", "--json"))["results"]["mcsgn"]["values"] == [[-1.0]]
    run("mcsgn", "none.npy", code=1)
    run("none", code=2)
    assert run("doctor").rstrip().endswith("no fault found")
    tour = json.loads(run("tour", "--quick", "--json", "-o", "tour.html"))
    assert tour["passed"]
    assert Path("tour.html").stat().st_size > 1e4


if __name__ == "__main__":
    check_import()
    check_command_line()
    print(f"Python {sys.version.split()[0]}: the installed matsign works")
