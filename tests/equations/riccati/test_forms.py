"""The matrix g in place of b and r, against 70 digits; estimates x0 of the solution; their derivatives and errors."""

import numpy as np
import pytest

import matsign
import truth
from matrices import definite, gaussian
from matsign import SpectrumError, certify, extremal_solutions, solve_continuous_are, solve_discrete_are
from matsign.cli.arguments import read_arrays

BOTH = pytest.mark.parametrize("f", [solve_continuous_are, solve_discrete_are], ids=["continuous", "discrete"])
ONE, TWO = np.eye(1), np.eye(2)


def other_side(f):
    return {"circle": "outside"} if f is solve_discrete_are else {"half_plane": "right"}


def hermitian(x):
    return (x + x.conj().T) / 2


def plant(rng, n=4, m=2, dtype="float64"):
    """a, b, q, r, e and g = b r⁻¹ bᴴ."""
    a, b, r = gaussian(rng, n, n, dtype=dtype), gaussian(rng, n, m, dtype=dtype), definite(rng, m, dtype=dtype)
    e = np.eye(n) + 0.1 * gaussian(rng, n, n, dtype=dtype)
    return a, b, definite(rng, n, dtype=dtype), r, e, hermitian(b @ np.linalg.solve(r, b.conj().T))


@BOTH
def test_the_solution_is_that_for_b_and_r(f, on, rng):
    a, b, q, r, e, g = plant(rng)
    for options in ({}, other_side(f)):
        expected = f(a, b, q, r, e, **options)
        x = on(lambda a, q, e, g, options=options: f(a, None, q, None, e, g=g, **options), a, q, e, g)
        np.testing.assert_allclose(x, expected, rtol=1e-9, atol=1e-9 * abs(expected).max())


def test_both_extremal_solutions(rng):
    a, b, q, r, e, g = plant(rng)
    for f in (extremal_solutions, matsign.discrete_extremal_solutions):
        pairs = zip(f(a + 2 * np.eye(4), None, q, None, e, g=g), f(a + 2 * np.eye(4), b, q, r, e), strict=True)
        for x, y in pairs:
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9 * abs(y).max())


def graded(rng, dtype, low, high):
    d = 10 ** np.linspace(low, high, 4)
    b = gaussian(rng, 4, 2, dtype=dtype)
    return d[:, None] * (np.eye(4) + hermitian(b @ b.conj().T)) * d


G = {
    "of rank 1": lambda rng, dtype: np.outer(*2 * (gaussian(rng, 4, dtype="float64"),)).astype(dtype),
    "indefinite": lambda rng, dtype: np.diag([1.0, 2.0, 0.5, -0.01]).astype(dtype),
    "graded": lambda rng, dtype: graded(rng, dtype, 0, 8),
    "graded downwards": lambda rng, dtype: graded(rng, dtype, 0, -8),
    "large": lambda rng, dtype: graded(rng, dtype, 12, 12),
    "tiny": lambda rng, dtype: graded(rng, dtype, -10, -10),
}


@BOTH
@pytest.mark.parametrize("kind", G)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_accuracy(f, kind, dtype, rng):
    discrete = f is solve_discrete_are
    a, q, g = 0.6 * gaussian(rng, 4, 4, dtype=dtype), np.eye(4, dtype=dtype), hermitian(G[kind](rng, dtype))
    for side, options in ((-1, {}), (1, other_side(f))):
        x, certificate = certify(f)(a, None, q, None, g=g, **options)
        exact = truth.riccati_of_g(discrete, a, q, g, side)
        assert truth.error(x, exact) < 5e-14
        assert truth.error(x, exact) < 30 * certificate.forward_error
        assert certificate.forward_error < 1e-11


@pytest.mark.parametrize(
    ("arguments", "g", "complaint"),
    [
        ((TWO, TWO, TWO, TWO), TWO, "g is given together with b and r; g takes the place of b and r"),
        ((TWO, TWO, TWO, None), TWO, "g is given together with b; g takes the place of b and r"),
        ((TWO, None, TWO, None, None, TWO), TWO, "g is given together with s; the cross term s needs b and r"),
        ((TWO, None, TWO, None), None, "b and r must be given, or g in place of b and r"),
        ((TWO, TWO, TWO, None), None, "r must be given, or g in place of b and r"),
        ((TWO, None, TWO, None), np.triu(np.ones((2, 2))), "g is not Hermitian"),
        ((TWO, None, TWO, None), np.eye(3), "g has shape"),
    ],
)
def test_what_is_given(arguments, g, complaint):
    functions = (solve_continuous_are, solve_discrete_are, extremal_solutions, matsign.discrete_extremal_solutions)
    for f in functions:
        with pytest.raises(ValueError, match=complaint):
            f(*arguments, g=g)


def test_numbers_and_vectors_stand_for_weights():
    a, q = np.diag([1.0, -2.0]), np.eye(2)
    np.testing.assert_array_equal(
        solve_continuous_are(a, None, 1, None, g=2.0), solve_continuous_are(a, None, q, None, g=[2.0, 2.0])
    )


@BOTH
def test_reasons(f):
    a = np.diag([2.0, 0.5]) if f is solve_discrete_are else np.diag([1.0, -1.0])
    cases = [
        ({}, np.diag([0.0, 1.0]), "the pair (a, g) is not stabilisable: g does not act on the mode of the eigenvalue "),
        (other_side(f), np.diag([1.0, 0.0]), "there is no anti-stabilising solution: g does not act on the mode "),
        ({}, np.diag([-5.0, 1.0]), "on the boundary of stability, because q or g is indefinite"),
    ]
    for options, g, reason in cases:
        with pytest.raises(SpectrumError) as caught:
            f(a, None, TWO, None, g=g, **options)
        assert reason in str(caught.value)
    if f is solve_discrete_are:
        with pytest.raises(SpectrumError, match="the eigenvalue 0, because a is singular"):
            f(np.diag([2.0, 0.0]), None, TWO, None, g=TWO, **other_side(f))


@pytest.mark.slow
@BOTH
def test_torch_differentiates_twice(f, rng):
    torch = pytest.importorskip("torch")
    a, _, q, _, e, g = plant(rng, 2, 1)
    discrete = f is solve_discrete_are
    options = other_side(f) if discrete else {}
    a = a + 2 * TWO if discrete else a
    arguments = [torch.tensor(x, requires_grad=True) for x in (a, q, e, g - 0.1 * TWO, 0.9 * q)]

    def solve(a, q, e, g, x0):
        return f(a, None, q, None, e, g=g, x0=x0, **options)

    assert torch.autograd.gradcheck(solve, arguments)
    assert torch.autograd.gradgradcheck(solve, arguments)


@pytest.mark.compiles
@pytest.mark.slow
def test_jax_compiles_both_forms(rng):
    """Value and gradients, also for an estimate that holds NaN, in one program."""
    jax = pytest.importorskip("jax")
    a, b, q, r, _, g = plant(rng, 2, 1)

    def total(a, g, x0):
        return solve_continuous_are(a, None, jax.numpy.asarray(q), None, g=g, x0=x0).sum()

    gradient = jax.jit(jax.value_and_grad(total, (0, 1, 2)))
    x = solve_continuous_are(a, b, q, r)
    for x0 in (x, np.full_like(x, np.nan)):
        value, (by_a, by_g, by_x0) = gradient(*map(jax.numpy.asarray, (a, g, x0)))
        assert abs(value - x.sum()) < 1e-12 * abs(x).sum()
        assert np.isfinite(by_a).all()
        step = 1e-6
        ahead, back = (solve_continuous_are(a, None, q, None, g=g + s * TWO).sum() for s in (step, -step))
        assert abs(np.trace(by_g) - (ahead - back) / (2 * step)) < 1e-7 * abs(by_g).max()
        assert not by_x0.any()


@BOTH
def test_the_answer_does_not_depend_on_the_estimate(f, eager, rng):
    """Near the solution Newton's method takes few steps; other members are solved as without an estimate."""
    a, b, q, r, e, _ = (np.stack(x) for x in zip(*(plant(rng) for _ in range(7)), strict=True))
    x = f(a, b, q, r, e)
    x0 = x * (1 + 1e-7 * gaussian(rng, 7, 4, 4))
    x0[1], x0[2], x0[3], x0[4], x0[5] = -x[1], 0, np.nan, 1e300, np.inf

    def solve(*arguments):
        return certify(f)(*arguments[:-1], x0=arguments[-1])

    y, certificate = eager(solve, a, b, q, r, e, x0)
    without = certify(f)(a, b, q, r, e)[1].iterations
    np.testing.assert_allclose(y, x, rtol=1e-12, atol=1e-13 * abs(x).max())
    assert certificate.converged.all()
    assert (certificate.iterations[[0, 6]] < without[[0, 6]]).all()
    for k in range(7):
        np.testing.assert_array_equal(y[k], eager(solve, a[k], b[k], q[k], r[k], e[k], x0[k])[0])


def test_the_other_solution_is_no_answer(rng):
    """The anti-stabilising solution as an estimate, exact to rounding, is not returned for the stabilising one."""
    a, b, q, r, e, g = plant(rng)
    for f in (solve_continuous_are, solve_discrete_are):
        x, y = f(a, b, q, r, e), f(a, b, q, r, e, **other_side(f))
        np.testing.assert_array_equal(f(a, b, q, r, e, x0=y), x)
        np.testing.assert_allclose(f(a, b, q, r, e, x0=x, **other_side(f)), y, rtol=1e-9)
        np.testing.assert_allclose(f(a, None, q, None, e, g=g, x0=y), x, rtol=1e-9)


def test_regulators_and_estimators_from_estimates(rng):
    a, b, q, r, _, _ = plant(rng)
    for f in (matsign.lqr, matsign.dlqr, matsign.lqe, matsign.dlqe):
        arguments = (a, b, q, r) if "lqr" in f.__name__ else (a, np.eye(4), b.T, q, r)
        expected = f(*arguments)
        for x0 in (expected.solution, np.full((4, 4), np.nan)):
            for x, y in zip(f(*arguments, x0=x0), expected, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-10)
        with pytest.raises(ValueError, match="x0 has shape"):
            f(*arguments, x0=np.eye(3))


def test_one_estimate_for_a_batch(rng):
    a, b, q, r, _, _ = plant(rng)
    a = a + 1e-4 * gaussian(rng, 3, 4, 4)
    x = solve_continuous_are(a[0], b, q, r)
    y, certificate = certify(solve_continuous_are)(a, b, q, r, x0=x)
    np.testing.assert_allclose(y, solve_continuous_are(a, b, q, r), rtol=1e-11)
    assert certificate.iterations.max() <= 5


def test_the_command_line_leaves_out_b_and_r():
    texts = {"a": "-1", "b": "none", "q": "1", "r": "none", "e": None, "s": None, "g": "2", "x0": None}
    arrays = read_arrays(solve_continuous_are.spec.parameters, texts)
    assert arrays["b"] is None
    assert arrays["r"] is None
    assert solve_continuous_are(**arrays)[0, 0] == pytest.approx((-2 + 12**0.5) / 4)
