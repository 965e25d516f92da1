"""Under ``jax.jit`` and ``jax.vmap`` combined; values and failures under jit alone are in test_every_function."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import matsign
from matrices import gaussian, splitting
from problems import PROBLEMS

jax = pytest.importorskip("jax")

pytestmark = pytest.mark.compiles


@pytest.mark.parametrize(
    ("f", "options", "make"),
    [
        (matsign.msign, {}, lambda rng: gaussian(rng, 3, 2, 4, 3)),
        (matsign.msign, {"method": "polynomial"}, lambda rng: gaussian(rng, 3, 2, 4, 3)),
        (matsign.mcsgn, {"method": "newton"}, lambda rng: np.stack([[splitting(rng, 4)] * 2] * 3)),
    ],
    ids=["msign", "msign polynomial", "mcsgn newton"],
)
def test_vmap_of_jit_equals_the_batch(f, options, make, rng):
    m = make(rng)
    value = jax.vmap(jax.jit(lambda x: f(x, **options)))(m)
    np.testing.assert_allclose(value, f(m, **options), atol=1e-12)


def test_vmap_over_a_single_matrix_axis(rng):
    m = np.stack([splitting(rng, 4) for _ in range(3)])
    value = jax.jit(jax.vmap(lambda x: matsign.mcsgn(x, method="newton")))(m)
    np.testing.assert_allclose(value, matsign.mcsgn(m), atol=1e-12)


def test_inside_a_loop_and_a_conditional(rng):
    m = splitting(rng, 3)
    f = jax.jit(lambda x: jax.lax.fori_loop(0, 3, lambda _, y: matsign.mcsgn(y, method="newton"), x))
    np.testing.assert_allclose(f(m), matsign.mcsgn(m), atol=1e-12)


def test_compiled_for_a_cpu_is_one_call_of_numpy(rng):
    m = splitting(rng, 5)
    assert jax.jit(matsign.mcsgn).lower(m).as_text().count("stablehlo.custom_call") == 1
    np.testing.assert_array_equal(jax.jit(matsign.mcsgn)(m), matsign.mcsgn(m))


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.name)
def test_compiled_for_a_cpu_nothing_is_factorised_by_xla(problem, rng):
    """Several stacked factorisations in one program of jaxlib 0.10.2 deadlock on two cores."""
    arrays = problem.make(rng, "float64")

    def total(*xs):
        return sum(abs(y).sum() for y in jax.tree.leaves(problem.f(*xs)))

    every = tuple(range(len(arrays)))
    for f in (problem.f, jax.grad(total, every), jax.jvp, matsign.certify(problem.f), matsign.condition(problem.f)):
        g = (lambda *xs: jax.jvp(jax.grad(total, every), xs, xs)) if f is jax.jvp else f
        text = jax.jit(lambda *xs, g=g: jax.tree.leaves(g(*xs))).lower(*arrays).as_text()
        assert "lapack" not in text


def test_denormal_numbers_keep_their_value_in_a_compiled_program():
    m = np.array([[1e-310, 3e-310], [0.0, -2e-310]])
    np.testing.assert_array_equal(jax.jit(matsign.mcsgn)(m), matsign.mcsgn(m))


def test_programs_in_several_threads_come_to_an_end(rng):
    m = np.stack([splitting(rng, 60) for _ in range(8)])
    f = jax.jit(lambda x: (matsign.mcsgn(x), matsign.sqrtm(x @ x.mT), matsign.polar(x).h))
    expected = matsign.mcsgn(m)
    with ThreadPoolExecutor(6) as pool:
        for value in pool.map(lambda _: f(m)[0], range(12), timeout=120):
            np.testing.assert_allclose(value, expected, atol=1e-12)
