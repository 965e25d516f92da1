"""`matsign plan`: counts against what runs, sizes that fit nowhere, and one line for nonsense."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import matsign
from matsign.backends import numpy as numpy_backend
from matsign.cli.app import app
from matsign.cli.commands import functions
from matsign.iterations.minimax import NAMED
from matsign.planning import plan_function


def run(*arguments):
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


def planned(*arguments):
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def sizes_of(f, n=40):
    wanted = [
        s
        for a, s in zip(f.spec.parameters.arrays, f.spec.parameters.shapes, strict=True)
        if a not in f.spec.parameters.optional
    ]
    collections = {3: ["3"]}  # k matrices
    return ["x".join([*collections.get(len(s), []), *(str(n) for _ in s[-2:])]) for s in wanted]


def options_of(f):
    values = {"order": 2, "t": 0.5, "p": 2, "kT": 0.5, "k": 2} | ({"steps": 2} if "horizon" in f.__name__ else {})
    return [f"--set={name}={value}" for name, value in values.items() if name in f.spec.parameters.options]


@pytest.mark.slow
@pytest.mark.parametrize("f", functions(), ids=lambda f: f.__name__)
def test_every_function_has_a_plan_of_any_size(f):
    """Also where no machine has the memory: nothing is allocated. The work grows with the third power of the size."""
    if any(len(size.split("x")) != 2 for size in sizes_of(f)):
        pytest.skip("plans take sizes of matrices, not of vectors or sequences")
    small, large = (planned(f.__name__, *sizes_of(f, n), *options_of(f), "--memory", "80GB") for n in (200, 100_000))
    assert small["fits"]
    assert not large["fits"]
    assert large["way"] == "does not fit"
    # Those with Schur vectors of general matrices, or with eigenvalues, run on the host; a cold warm_svd is one decomposition.
    if f.__name__ not in ("logm", "rootm", "hinf_norm", "discrete_hinf_norm", "warm_svd"):
        assert small["products"][1] > 0
        assert small["products"][0] <= small["products"][1]
    assert 0.5 < large["flops"][1] / small["flops"][1] / 500**3 < 2
    assert 0.8 < large["bytes_held"] / small["bytes_held"] / 500**2 < 1.2


@pytest.mark.parametrize("shape", [(30, 30), (90, 20), (20, 90)])
@pytest.mark.parametrize("options", [{"steps": 4}, {"schedule": "polar_express"}, {"schedule": "muon", "steps": 7}])
def test_products_are_those_that_run(monkeypatch, shape, options):
    """Counted while NumPy computes."""
    count = 0

    class Counted(np.ndarray):
        def __array_ufunc__(self, ufunc, method, *inputs, **keywords):
            nonlocal count
            plain = [np.asarray(x) if isinstance(x, Counted) else x for x in inputs]
            count += ufunc is np.matmul and min(plain[0].shape[-2:] + plain[1].shape[-1:]) > 1
            keywords["out"] = tuple(np.asarray(x) for x in keywords.get("out", ())) or None
            result = getattr(ufunc, method)(*plain, **keywords)
            return result.view(Counted) if isinstance(result, np.ndarray) else result

    m = np.random.default_rng(0).standard_normal((2, *shape)).view(Counted)
    monkeypatch.setattr(numpy_backend, "hermitian_product", lambda a, b, shift=0.0: a @ b + shift * np.eye(a.shape[-2]))
    matsign.functions.polar.methods.orthogonalise(numpy_backend, m, tol=None, rtol=None, method="polynomial", **options)
    plan = plan_function(matsign.msign, (2, *shape), dtype="float64", **options)
    assert plan.products == (count, count)
    assert plan.factorisations == (0, 0)


def test_products_follow_the_schedule():
    """A square matrix takes three products a step, the first of which also gives the norm."""
    for name, steps in NAMED.items():
        assert plan_function(matsign.msign, (64, 64), schedule=name).products == (3 * len(steps),) * 2


def test_batch_is_local():
    plan = planned("msign", "1000x4096x1024", "--mesh", "dp=4,tp=2", "--set", "steps=4", "--memory", "80GB")
    assert plan["way"] == "local batch"
    assert plan["bytes_moved"] == 0
    assert plan["collectives"] == []
    one = planned("msign", "125x4096x1024", "--set", "steps=4")
    assert one["way"] == "one device"
    assert plan["bytes_held"] == one["bytes_held"]
    assert plan["flops"][0] == 8 * one["flops"][0]
    assert plan["memory"]["arguments"] == 125 * 4096 * 1024 * 4


def test_uneven_batch():
    plan = planned("mcsgn", "9x30x30", "--mesh", 8)
    assert plan["busiest"] == pytest.approx(2 * 8 / 9)
    assert any(note.startswith("3 of 8 devices have nothing") for note in plan["notes"])


def test_what_does_not_fit_says_what_would():
    plan = planned("msign", "64x20000x20000", "--mesh", 8, "--memory", "20GB", "--set", "steps=4")
    assert plan["way"] == "does not fit"
    assert not plan["fits"]
    count = int(plan["reason"].split(" devices")[0].rpartition(" ")[2])
    again = planned("msign", "64x20000x20000", "--mesh", count, "--memory", "20GB", "--set", "steps=4")
    assert again["fits"]
    assert again["way"] == "local batch"
    half = planned("msign", "64x20000x20000", "--mesh", count // 2, "--memory", "20GB", "--set", "steps=4")
    assert not half["fits"]


def test_report_and_python_agree():
    shown = run("mcsgn", "500x500", "--mesh", "x=2,y=2", "--memory", "64GiB").stdout
    plan = plan_function(matsign.mcsgn, (500, 500), mesh={"x": 2, "y": 2}, memory=64 * 2**30)
    assert shown.split() == str(plan).split() == repr(plan).split()
    for word in ("products", "factorisations", "flops", "bytes moved", "memory a device", "way"):
        assert word in shown


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("mcsgm", "3x3"), "did you mean mcsgn?"),
        (("solve-sylvestr", "3x3"), "did you mean solve_sylvester?"),
        (("zzz", "3x3"), "no function 'zzz'"),
        (("mcsgn", "3x3", "--mesh", "0"), "positive sizes"),
        (("mcsgn", "3x3", "--mesh", "dp=0,tp=8"), "'dp=0'"),
        (("mcsgn", "3x3", "--mesh", "dp=-1"), "'dp=-1'"),
        (("mcsgn", "3x3", "--mesh", "dp=2,dp=2"), "occurs twice"),
        (("mcsgn", "3x3", "--mesh", ""), "not an axis"),
        (("mcsgn", "3x3", "--memory", "0GB"), "positive number of bytes"),
        (("mcsgn", "3x3", "--memory", "-1GB"), "positive number of bytes"),
        (("mcsgn", "3x3", "--memory", "much"), "positive number of bytes"),
        (("mcsgn", "0x3"), "not a size"),
        (("mcsgn", "3"), "not a size"),
        (("mcsgn", "9999999999x9999999999"), "at most 1000000000"),
        (("mcsgn", "3x-3"), "not a size"),
        (("mcsgn", "3x1e3"), "not a size"),
        (("mcsgn", "3x4"), "expected (..., n, n)"),
        (("mcsgn",), "takes the arrays M"),
        (("mcsgn", "3x3", "3x3"), "takes the arrays M"),
        (("solve_sylvester", "3x3", "4x4", "4x3"), "q has shape (4, 3)"),
        (("solve_sylvester", "2x3x3", "3x4x4", "3x4"), "do not broadcast"),
        (("mcsgn", "3x3", "--set", "step=3"), "no option step"),
        (("mcsgn", "3x3", "--set", "method"), "name=value"),
        (("mcsgn", "3x3", "--set", "function=1"), "not an option"),
        (("mcsgn", "3x3", "--set", "method=magic"), "method must be one of"),
        (("soft_threshold", "3x3"), "needs t"),
        (("soft_threshold", "3x3", "--set", "t=-1"), "at least 0"),
        (("mcsgn", "3x3", "--dtype", "bfloat16"), "dtype must be one of"),
        (("mcsgn", "3x3", "--dtype", "int8"), "dtype"),
        (("msign", "3x3", "--set", "steps=0"), "steps must be"),
    ],
)
def test_nonsense_is_refused_in_one_line(arguments, text):
    done = run(*arguments)
    assert done.exit_code in (1, 2)
    assert not done.stdout
    assert len(done.stderr.splitlines()) == 1
    assert text in done.stderr
    assert done.stderr.startswith("matsign: ")


@pytest.mark.parametrize(
    ("keywords", "error", "text"),
    [
        ({"mesh": 0}, ValueError, "positive whole number"),
        ({"mesh": {"x": 2.0}}, ValueError, "size of x"),
        ({"mesh": {}}, ValueError, "mesh must be"),
        ({"mesh": True}, ValueError, "mesh must be"),
        ({"memory": -1}, ValueError, "memory must be"),
        ({"memory": "80GB"}, ValueError, "memory must be"),
        ({"memory": float("nan")}, ValueError, "memory must be"),
        ({"dtype": 3}, ValueError, "dtype must be"),
    ],
)
def test_bad_arguments_in_python(keywords, error, text):
    with pytest.raises(error, match=text):
        plan_function(matsign.mcsgn, (3, 3), **keywords)


def test_other_functions_are_refused():
    with pytest.raises(TypeError, match="function of matsign"):
        plan_function(np.sin, (3, 3))
    with pytest.raises(ValueError, match="positive whole numbers"):
        plan_function(matsign.mcsgn, (3.0, 3))


@pytest.mark.slow
def test_one_matrix_over_64_devices():
    """n = 200 000, which fits on no single device, by products that pass every block around the ring of devices."""
    pytest.importorskip("jax")
    where = ("--mesh", "x=8,y=8", "--memory", "80GB")
    plan = planned("mcsgn", "200000x200000", *where, "--set", "method=polynomial")
    assert plan["way"] == "products in panels"
    assert plan["fits"]
    assert plan["factorisations"] == [0, 0]
    assert plan["memory"]["arguments"] == 4 * 200_000**2 / 64
    passed = next(c for c in plan["collectives"] if c["kind"] == "permute")
    assert passed["times"] == 63 * plan["products"][1]
    # 128 devices do not divide the rows.
    few = planned("mcsgn", "200000x200000", "--mesh", "x=8,y=8", "--memory", "20GB", "--set", "method=polynomial")
    assert "160 devices would hold it (products in panels)" in few["reason"]
    # Blocks of a small matrix count, too: 63 exchanges of 64 numbers.
    small = planned("mcsgn", "64x64", "--mesh", 64, "--set", "method=polynomial")
    assert small["bytes_moved"] >= 63 * 256 * small["products"][1]
    # Eigenvectors of one matrix are not computed by products.
    assert planned("mcsgn", "200000x200000", *where, "--set", "method=eigh")["way"] == "does not fit"
    assert "must divide" in run("mcsgn", "200001x200001", *where).stderr


@pytest.mark.compiles
def test_compiled_programs():
    """Products and memory of one device are those of the program that XLA compiles."""
    jax = pytest.importorskip("jax")
    for shape, steps in (((4, 192, 64), 4), ((3, 96, 96), 3)):
        plan = plan_function(matsign.msign, shape, steps=steps)
        x = jax.ShapeDtypeStruct(shape, "float32")
        compiled = jax.jit(lambda m, steps=steps: matsign.msign(m, steps=steps, errors="nan")).lower(x).compile()
        text = compiled.as_text()
        assert text.count(" dot(") + text.count("__onednn$matmul") == plan.products[0]
        held = compiled.memory_analysis()
        total = held.argument_size_in_bytes + held.output_size_in_bytes + held.temp_size_in_bytes
        assert held.argument_size_in_bytes == plan.memory["arguments"]
        assert 0.5 * plan.bytes_held < total < 1.1 * plan.bytes_held
