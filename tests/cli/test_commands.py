"""Every public function as a command, on every format; every error is one line and an exit code."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import matsign
from matsign.cli.app import app
from matsign.cli.commands import functions
from matsign.cli.files import read, read_all, write

FORMATS = ("npy", "npz", "mat", "mtx", "csv")
# A positive definite matrix is an input that every function accepts.
MATRIX = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, 0.25], [0.5, 0.25, 2.0]])
# For the Riccati equation a must have its spectrum in the left half plane and b in the right.
PLANT = (-MATRIX, MATRIX, np.eye(3), 0.1 * np.eye(3))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        return CliRunner().invoke(app, [str(a) for a in arguments])

    return call


STABLE = (
    "lyapunov_factor",
    "gramian",
    "h2_norm",
    "hinf_norm",
    "hankel_singular_values",
    "balanced_truncation",
)


def arguments_of(f):
    """Matrices that f accepts."""
    if f.__name__ == "solve_riccati":
        return PLANT
    if f.__name__ == "solve_sylvester_pair":
        return (MATRIX, -MATRIX, *[MATRIX] * 4)
    if f.__name__ == "bounded_real_balanced_truncation":
        return -MATRIX, MATRIX, 0.1 * MATRIX
    if f.__name__ == "dlqr_time_varying":
        return np.stack([MATRIX, MATRIX / 2]), MATRIX, MATRIX, MATRIX
    if f.__name__ == "stiefel_step":
        return np.eye(3), MATRIX
    if len(f.spec.operation.shapes[0]) == 3:
        return (np.stack([MATRIX, np.eye(3)]),)
    wanted = [name for name in f.spec.parameters.arrays if name not in f.spec.parameters.optional]
    first = -MATRIX if f.__name__ in STABLE else MATRIX / 8 if "discrete" in f.__name__ else MATRIX
    return (first, *[MATRIX] * (len(wanted) - 1))


def options_of(f):
    """The options without a default."""
    return {
        name: value
        for name, value in (("order", 3), ("gamma", 10), ("t", 0.75), ("p", 3), ("steps", 2), ("kT", 0.5), ("k", 2))
        if name in f.spec.parameters.options and (name != "steps" or "horizon" in f.__name__)
    }


@pytest.mark.slow
@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("f", functions(), ids=lambda f: f.__name__)
def test_every_command_on_every_format(run, f, ending):
    arrays, options = arguments_of(f), options_of(f)
    given = [f"--{name.lower()}={value}" for name, value in options.items()]
    if arrays[0].ndim == 3 and ending in ("mtx", "csv"):
        pytest.skip("a file of this format holds one matrix")
    for k, x in enumerate(arrays):
        write([f"in{k}.{ending}"], {"x": x}) if x.ndim else None
        given.append(f"in{k}.{ending}" if x.ndim else str(x))
    value = f(*arrays, **options)
    values = value if isinstance(value, tuple) else (value,)
    out = [x for k in range(len(values)) for x in ("-o", f"out{k}.{ending}")]
    result = run(f.__name__.replace("_", "-"), *given, *out)
    if ending in ("csv", "mtx") and any(x.ndim > 2 for x in values):
        assert f"one matrix fits into .{ending}, not a stack" in result.output
        return
    assert result.exit_code == 0, result.output
    assert "backward error" in result.output
    for k, expected in enumerate(values):
        written = read(f"out{k}.{ending}")
        written = written[:, 0] if expected.ndim < 2 and written.ndim == 2 else written  # matrices only in this format
        np.testing.assert_allclose(written, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.slow
def test_the_example_in_the_help_of_every_command_runs(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    for f in functions():
        name = f.__name__.replace("_", "-")
        shown = run(name, "--help").stdout
        example = next(x for x in shown.splitlines() if "Example: matsign" in x)
        for x, matrix in zip(f.spec.parameters.arrays, arguments_of(f), strict=False):
            np.save(f"{x}.npy", matrix)
        words = example.split("Example: matsign ")[1].split()
        done = run(*words)
        assert words[0] == name
        assert all(x in shown for choices in f.spec.parameters.choices.values() for x in choices if x is not None)
        assert done.exit_code == 0, (example, done.output)
        assert Path(words[-1]).exists()
    for name in ("tour", "plan", "doctor"):
        assert f"Example: matsign {name} " in run(name, "--help").stdout


def test_a_container_takes_all_results_by_name(run):
    write(["m.csv"], {"m": MATRIX})
    assert run("polar", "m.csv", "-o", "p.mat").exit_code == 0
    assert run("sqrtm_pair", "m.csv", "-o", "r.npz").exit_code == 0
    u, h = matsign.polar(MATRIX)
    found = read_all(Path("p.mat"))
    assert np.allclose(found["u"], u)
    assert np.allclose(found["h"], h)
    assert len(read_all(Path("r.npz"))) == 2


@pytest.mark.slow
def test_options_are_the_functions_own(run):
    write(["m.npy"], {"m": np.diag([2.0, -1.0])})
    options = ("--half-plane", "left", "--method", "newton", "--rtol", "1e-10")
    shown = run("spectral-projector", "m.npy", *options, "-o", "p.npy")
    assert shown.exit_code == 0
    assert "iterations 0" not in shown.output
    assert np.allclose(read("p.npy"), np.diag([0.0, 1.0]))
    for f in functions():
        text = run(f.__name__.replace("_", "-"), "--help").output
        assert all(f"--{name.replace('_', '-').lower()}" in text for name in f.spec.parameters.options)


def test_a_stack_reports_its_worst_member(run):
    write(["s.npy"], {"s": np.stack([MATRIX, -MATRIX])})
    assert "converged 2 of 2" in run("mcsgn", "s.npy").output
    rotation = np.array([[0.0, 1.0], [-1.0, 0.0]])
    write(["r.npy"], {"r": np.stack([rotation, np.eye(2)])})
    assert "converged 1 of 2" in run("mcsgn", "r.npy", "--errors", "nan").output


MISTAKES = {
    "no such file": (["mcsgn", "none.npy"], "none.npy: No such file"),
    "not a matrix file": (["mcsgn", "m.txt"], "cannot read .txt"),
    "corrupt": (["mcsgn", "corrupt.mat"], "corrupt.mat is not a readable .mat file"),
    "not square": (["mcsgn", "wide.npy"], "M has shape (2, 3)"),
    "a vector": (["msign", "vector.npy"], "M has shape (3,)"),
    "shapes that do not fit": (["solve-sylvester", "m.npy", "m.npy", "wide.npy"], "q has shape (2, 3)"),
    "too few": (["solve-sylvester", "m.npy"], "Missing argument"),
    "too many": (["mcsgn", "m.npy", "m.npy"], "unexpected extra argument"),
    "no sign": (["mcsgn", "rotation.npy"], "imaginary axis"),
    "no root": (["sqrtm", "negative.npy"], "negative real axis"),
    "not finite": (["msign", "nan.npy"], "NaN or infinity"),
    "several members": (["mcsgn", "stack.npy"], "batch members 0"),
    "a method it has not": (["mcsgn", "m.npy", "--method", "magic"], "method must be one of"),
    "not a number": (["mcsgn", "m.npy", "--tol", "small"], "--tol"),
    "an unknown option": (["mcsgn", "m.npy", "--magic"], "--magic"),
    "an unknown command": (["magic"], "magic"),
    "unknown output format": (["mcsgn", "m.npy", "-o", "x.txt"], "cannot write .txt"),
    "no such output folder": (["mcsgn", "m.npy", "-o", "none/x.npy"], "no folder none"),
    "two results for one file": (["polar", "m.npy", "-o", "u.npy"], "there are 2 results"),
    "a stack for .csv": (["mcsgn", "good.npy", "-o", "x.csv"], "one matrix fits into .csv"),
    "tour of no model": (["tour", "--model", "m.npy"], "holds no A, B, C"),
    "tour of a model that does not fit": (["tour", "--model", "odd.npz"], "a model is A (n, n)"),
    "tour on no library": (["tour", "--backend", "magic"], "magic"),
    "tour to no folder": (["tour", "-o", "none/x.html"], "no folder none"),
    "tour to a folder": (["tour", "-o", "."], "is a folder"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_and_an_exit_code(run, case):
    rotation = np.array([[0.0, 1.0], [-1.0, 0.0]])
    inputs = {
        "m": MATRIX,
        "wide": np.ones((2, 3)),
        "vector": np.arange(3.0),
        "rotation": rotation,
        "negative": np.array([[-1.0, 1.0], [0.0, -2.0]]),
        "nan": np.full((2, 2), np.nan),
        "stack": np.stack([rotation, np.eye(2)]),
        "good": np.stack([MATRIX, MATRIX]),
    }
    for name, x in inputs.items():
        write([f"{name}.npy"], {name: x})
    np.savez("odd.npz", A=MATRIX, B=np.ones((2, 1)), C=np.ones((1, 3)))
    for name in ("corrupt.mat", "m.txt"):
        Path(name).write_text("hello")
    arguments, message = MISTAKES[case]
    result = run(*arguments)
    assert result.exit_code not in (0, None)
    assert isinstance(result.exception, SystemExit)
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stderr.startswith("matsign: ")


def test_help_and_version(run):
    assert run("--version").output.strip() == f"matsign {matsign.__version__}"
    for arguments in ([], ["--help"]):
        shown = run(*arguments)
        assert shown.exit_code == 0
        assert all(f.__name__.replace("_", "-") in shown.output for f in functions())
    assert "imaginary axis" in " ".join(run("mcsgn", "--help").output.replace("│", " ").split())


def test_optional_matrices_are_options(run):
    a, b, e, s = np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([[0.0], [1.0]]), 2 * np.eye(2), np.array([[0.1], [0.2]])
    for name, x in {"a": a, "b": b, "q": np.eye(2), "e": e, "s": s}.items():
        write([f"{name}.npy"], {name: x})
    given = ["solve_continuous_are", "a.npy", "b.npy", "q.npy", "1", "--e", "e.npy", "--s", "s.npy", "--method", "qz"]
    result = run(*given, "-o", "x.npy")
    assert result.exit_code == 0, result.output
    assert "separation" in result.output
    expected = matsign.solve_continuous_are(a, b, np.eye(2), np.eye(1), e, s, method="qz")
    np.testing.assert_array_equal(read("x.npy"), expected)


def test_a_solution_on_the_boundary_is_said_to_be_one(run):
    for name, x in {
        "a": np.array([[0.0, 1.0], [-1.0, 0.0]]),
        "b": np.array([[0.0], [1.0]]),
        "q": np.zeros((2, 2)),
    }.items():
        write([f"{name}.npy"], {name: x})
    result = run("solve_continuous_are", "a.npy", "b.npy", "q.npy", "1")
    assert "on the boundary of stability" in result.output


def test_thresholds_are_numbers_or_files(run, rng):
    m, t = rng.standard_normal((2, 3, 2)), np.array([0.5, 1.0])
    np.save("m.npy", m)
    np.savetxt("t.csv", t)
    for options, expected in (
        (["--upper", "0.5"], matsign.mclip(m, 0.0, 0.5)),
        (["--lower", "t.csv", "--upper", "inf"], matsign.mclip(m, t, np.inf)),
    ):
        result = run("mclip", "m.npy", *options, "-o", "x.npy")
        assert result.exit_code == 0, result.output
        np.testing.assert_array_equal(np.load("x.npy"), expected)
