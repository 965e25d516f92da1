"""Programs for an accelerator, without one: JAX lowers for it, and the same program runs on the CPU."""

import numpy as np
import pytest

import matsign
from matrices import gaussian, splitting, stable
from problems import BY_NAME, PROBLEMS, as_tuple, worst

jax = pytest.importorskip("jax")

from jax import export  # noqa: E402

from matsign.backends import jax_host  # noqa: E402

LINES, LINES_OF_A_GRADIENT = 1500, 3000

pytestmark = pytest.mark.compiles
every_function = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)


def total(f):
    """A real function of the arrays that depends on all results."""
    return lambda *xs: sum(abs(y).sum() for y in as_tuple(f(*xs)))


def assert_short(f, limit, *arguments):
    """At most `limit` lines in the program for CUDA and in that for a TPU: so if one program for both has no more.

    The number of lines of that one.
    """
    jitted = jax.jit(f)
    both = lines(jitted, ["cuda", "tpu"], *arguments)
    if both > limit:
        for platform in ("cuda", "tpu"):
            assert lines(jitted, [platform], *arguments) <= limit
    return both


def assert_short_with_its_gradient(f, arguments, solutions=1):
    """`solutions` counts the methods that take over from the sign for each of them."""
    gradient = jax.grad(total(f), tuple(range(len(arguments))))
    both = assert_short(gradient, solutions * LINES_OF_A_GRADIENT, *arguments)
    if both > solutions * LINES:  # else f, which is a part of that program, has no more lines
        assert_short(lambda *xs: f(*xs), solutions * LINES, *arguments)


def lines(jitted, platforms, *arguments):
    """The number of lines of StableHLO that is exported, without source locations."""
    text = export.export(jitted, platforms=platforms)(*arguments).mlir_module()
    return sum(not line.startswith("#loc") for line in text.splitlines())


@every_function
def test_lowered_for_an_accelerator_is_short(problem, rng):
    solutions = 2 if problem.name.endswith("extremal_solutions") else 1
    assert_short_with_its_gradient(problem.f, problem.stacked(rng, 3), solutions)


def plant(rng, *batch):
    n, m = 4, 2
    a, b = gaussian(rng, *batch, n, n), gaussian(rng, *batch, n, m)
    return a, b, np.broadcast_to(np.eye(n), a.shape).copy(), np.broadcast_to(np.eye(m), (*batch, m, m)).copy()


def system(rng, *batch):
    a = np.stack([stable(rng, 4, "float64") for _ in range(batch[0])])
    return a, gaussian(rng, *batch, 4, 2), gaussian(rng, *batch, 2, 4)


@pytest.mark.parametrize(
    ("f", "make"),
    [
        (matsign.lqr, plant),
        (matsign.dlqr, plant),
        (matsign.hankel_singular_values, system),
        (lambda *xs: matsign.balanced_truncation(*xs, order=2), system),
        (lambda m: matsign.msign(m, steps=4), lambda rng, *batch: (gaussian(rng, *batch, 5, 3),)),
    ],
    ids=["lqr", "dlqr", "hankel_singular_values", "balanced_truncation", "msign in four steps"],
)
def test_functions_of_systems_are_short_too(f, make, rng):
    assert_short_with_its_gradient(f, make(rng, 3))


# Optimisation by XLA takes longer than it saves in a single run.
QUICKLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,  # they take most of the time
}


@pytest.fixture
def on_accelerator(monkeypatch):
    """Compiles and calls the program for an accelerator on the CPU; its list `helped` has the operations left to the host."""
    monkeypatch.setattr(jax_host, "calls_numpy", lambda module: False)
    helped, solve = [], jax_host.solve_some

    def noted(step, results, arrays):
        helped.append(np.asarray(arrays[0]).tolist())
        return solve(step, results, arrays)

    monkeypatch.setattr(jax_host, "solve_some", noted)

    def run(f, *arguments):
        return jax.jit(lambda *xs: f(*xs)).lower(*arguments).compile(QUICKLY)(*arguments)

    run.helped = helped
    yield run
    jax.clear_caches()


@every_function
def test_runs_by_itself_and_gives_the_answers_of_numpy(problem, on_accelerator, rng):
    dtype = ("float64", "complex128")[PROBLEMS.index(problem) % 2 if problem.takes("complex128") else 0]
    arguments = problem.stacked(rng, 3, dtype)
    assert worst(as_tuple(on_accelerator(problem.f, *arguments)), as_tuple(problem.f(*arguments))) < 1e-12
    assert not on_accelerator.helped


def test_matrices_of_every_small_size(on_accelerator, rng):
    sizes = [(n, ("float64", "complex128")[n % 2]) for n in range(1, 7)]
    stacks = [np.stack([splitting(rng, *size) for _ in range(4)]) for size in sizes]
    values = on_accelerator(lambda *xs: tuple(map(matsign.mcsgn, xs)), *stacks)
    for value, m in zip(values, stacks, strict=True):
        np.testing.assert_allclose(value, matsign.mcsgn(m), atol=1e-12)
    assert not on_accelerator.helped


@pytest.mark.parametrize("name", ["polar", "sqrtm", "solve_discrete_are"])
def test_gradients_are_those_of_numpy(name, on_accelerator, monkeypatch, rng):
    problem = BY_NAME[name]
    arguments = problem.stacked(rng, 2, "float64")
    gradient = jax.grad(lambda *xs: sum((y**2).sum() for y in as_tuple(problem.f(*xs))), tuple(range(len(arguments))))
    found = on_accelerator(gradient, *arguments)
    monkeypatch.setattr(jax_host, "calls_numpy", lambda module: True)
    jax.clear_caches()
    assert worst(found, jax.jit(gradient)(*arguments)) < 1e-10
    assert not on_accelerator.helped


def test_members_that_the_fast_method_does_not_serve_are_the_hosts(on_accelerator, rng):
    a, b, q, r = plant(rng, 4)
    b[1], a[1] = 0, np.eye(4)  # its unstable states are not controllable
    a[2, 0, 0] = np.nan
    a[3] = np.diag([1e-9, 1.0, 1e9, -1.0])  # digits are lost in working precision
    value = on_accelerator(matsign.solve_continuous_are, a, b, q, r)
    np.testing.assert_array_equal(np.isnan(value).all((1, 2)), [False, True, True, False])
    np.testing.assert_allclose(value[0], matsign.solve_continuous_are(a[0], b[0], q[0], r[0]), rtol=1e-12)
    np.testing.assert_array_equal(value[3], matsign.solve_continuous_are(a[3], b[3], q[3], r[3]))
    assert on_accelerator.helped == [[False, True, True, True]]


def test_an_exported_program_has_no_host_and_gives_nan_there(rng):
    m = np.stack([splitting(rng, 4) for _ in range(2)] + [np.diag([1.0, 0.0, 2.0, -1.0])])
    value = export.export(jax.jit(matsign.mcsgn), platforms=["cpu"])(m).call(m)
    np.testing.assert_allclose(value[:2], matsign.mcsgn(m[:2]), atol=1e-12)
    assert np.isnan(value[2]).all()
