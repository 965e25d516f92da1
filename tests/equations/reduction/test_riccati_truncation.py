"""LQG and bounded real balanced truncation: characteristic values in many digits, both Riccati equations, error bounds."""

import mpmath as mp
import numpy as np
import pytest
import scipy.signal

import matsign
import truth
from matrices import DTYPES, gaussian
from matsign import bounded_real_balanced_truncation, certify, hinf_norm, lqg_balanced_truncation
from problems import TOLERANCE

H = truth.adjoint


def model(rng, n=4, m=2, p=2, dtype="float64", shift=0.0):
    """A model that is not stable; its poles are left of -shift if that is positive."""
    a, b, c = gaussian(rng, n, n, dtype=dtype), gaussian(rng, n, m, dtype=dtype), gaussian(rng, p, n, dtype=dtype)
    a = a + (0.5 - np.linalg.eigvals(a).real.max()) * np.eye(n, dtype=dtype)
    return (
        a - np.asarray((shift + 0.5) * (shift > 0), dtype) * np.eye(n, dtype=dtype),
        b,
        c,
        gaussian(rng, p, m, dtype=dtype) / 4,
    )


def exact_values(a, b, c, d, sigma):
    """√λ(x w) in many digits."""

    def solve(a, b, c, d):
        r, c, d = H(d) @ d + sigma * np.eye(d.shape[1]), truth.exact(c), truth.exact(d)
        weights = H(c) @ c, truth.exact(r), np.eye(len(a)), H(c) @ d
        return truth.continuous_are(truth.exact(a), truth.exact(b), *weights)

    product = solve(a.conj().T, c.conj().T, b.conj().T, d.conj().T) @ solve(a, b, c, d)
    values = mp.eig(mp.matrix(product.tolist()), left=False, right=False)
    return np.sort([float(mp.sqrt(mp.re(v))) for v in values])[::-1]


def difference(full, small):
    """The difference of two models."""
    n, r = len(full[0]), len(small[0])
    a = np.block([[full[0], np.zeros((n, r))], [np.zeros((r, n)), small[0]]])
    return a, np.vstack([full[1], small[1]]), np.hstack([full[2], -small[2]]), full[3] - small[3]


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_equal_the_exact_ones(dtype, rng):
    for f, sigma, shift in ((lqg_balanced_truncation, 1, 0), (bounded_real_balanced_truncation, -1, 2.0)):
        a, b, c, d = model(rng, dtype=dtype, shift=shift)
        b = b / np.asarray(1 if sigma > 0 else 2 * hinf_norm(a, b, c)[0], b.dtype)
        small, certificate = certify(f)(a, b, c, 2, d=d)
        exact = exact_values(*(np.asarray(x, complex if "complex" in dtype else float) for x in (a, b, c, d)), sigma)
        assert small.a.dtype == dtype
        assert small.values.dtype == np.zeros(1, dtype).real.dtype
        assert np.abs(small.values - exact).max() < TOLERANCE[dtype] * exact[0]
        assert certificate.backward_error < TOLERANCE[dtype]
        assert np.abs(small.values - exact).max() < 10 * max(certificate.forward_error, np.finfo(dtype).eps) * exact[0]


def test_models_of_one_state():
    # w² - 2 w - 1 = 0 for 1/(s - 1), and w² - 4 w + 1 = 0 for 1/(s + 1) below gamma = 2.
    one = np.ones((1, 1))
    np.testing.assert_allclose(lqg_balanced_truncation(one, one, one, 1).values, [1 + 2**0.5], rtol=1e-14)
    small = bounded_real_balanced_truncation(-one, one, one, 1, gamma=2)
    np.testing.assert_allclose(small.values, [2 - 3**0.5], rtol=1e-14)
    np.testing.assert_allclose(small.b @ small.c, one, rtol=1e-14)


def test_small_values_are_accurate():
    """The roots of eigenvalues of a product of the solutions would lose values below √eps of the first."""
    a, b, c = np.diag([0.5, -1.0, -2, -3, -4, -5, -6]), np.ones((7, 1)), np.ones((1, 7))
    values = lqg_balanced_truncation(a, b, c, 1).values
    exact = exact_values(a, b, c, np.zeros((1, 1)), 1)
    assert exact[-1] < 1e-8 * exact[0]
    np.testing.assert_allclose(values[:-1], exact[:-1], rtol=1e-5)
    assert np.abs(values - exact).max() < 1e-14 * exact[0]


def test_both_equations_of_the_reduced_model_are_balanced(rng):
    a, b, c, d = model(rng)
    small = lqg_balanced_truncation(a, b, c, 2, d=d)
    expected = np.diag(small.values[:2])
    for a, b, c, d in (small[:4], [x.T for x in (small.a, small.c, small.b, small.d)]):
        w = matsign.solve_continuous_are(a, b, c.T @ c, np.eye(2) + d.T @ d, s=c.T @ d)
        np.testing.assert_allclose(w, expected, atol=1e-12)
    assert np.linalg.eigvals(small.a).real.max() > 0


def test_the_bound_for_coprime_factors(rng):
    a, b, c, _ = model(rng, n=6)

    def factors(a, b, c, *_):
        """[N; M] with N = c (s - a + b k)⁻¹ b, M = I - k (s - a + b k)⁻¹ b."""
        k = b.T @ matsign.solve_continuous_are(a, b, c.T @ c, np.eye(2))
        return a - b @ k, b, np.vstack([c, -k]), np.vstack([np.zeros((2, 2)), np.eye(2)])

    assert abs(hinf_norm(*factors(a, b, c))[0] - 1) < 1e-9
    for order in (2, 4, 5):
        small = lqg_balanced_truncation(a, b, c, order)
        left_out = small.values[order:]
        bound = 2 * (left_out / np.sqrt(1 + left_out**2)).sum()
        assert hinf_norm(*difference(factors(a, b, c), factors(*small)))[0] < bound * (1 + 1e-9)


@pytest.mark.parametrize("excess", [1.001, 1.5, 100])
def test_the_bound_of_the_gain_is_kept(excess, rng):
    full = model(rng, n=6, shift=1.0)
    gamma = excess * hinf_norm(*full)[0]
    for order in (1, 3, 5, 6):
        small = bounded_real_balanced_truncation(*full[:3], order, d=full[3], gamma=gamma)
        assert hinf_norm(*small[:4])[0] < gamma
        error = hinf_norm(*difference(full, small))[0]
        assert error < 2 * gamma * small.values[order:].sum() * (1 + 1e-9) + 1e-9
        assert 0 < small.values[0] < 1
    if excess == 100:  # nearly the Hankel singular values
        hankel = matsign.hankel_singular_values(*full[:3])
        np.testing.assert_allclose(gamma * small.values, hankel, rtol=1e-3)


def test_what_cannot_be_balanced(rng):
    stable = model(rng, shift=1.0)
    gain = hinf_norm(*stable)[0]
    one, two = np.array([1.0, 1.0]), 1e3 * np.diag([1.0, -1.0])
    for f, arrays, options, text in (
        (bounded_real_balanced_truncation, stable, {"gamma": 0.999 * gain}, "H∞ norm of the model is not below gamma"),
        (bounded_real_balanced_truncation, (*stable[:3], np.ones((2, 2))), {"gamma": 1e-3 * gain}, "not below gamma"),
        (bounded_real_balanced_truncation, (-np.eye(1), np.eye(1), np.eye(1), 4 * np.eye(1)), {}, "not below gamma"),
        (bounded_real_balanced_truncation, model(rng), {"gamma": 1e3}, "a is not stable"),
        (lqg_balanced_truncation, (two, one * [0, 1], one), {}, r"\(a, b\) is not stabilisable.* eigenvalue 1000 "),
        (lqg_balanced_truncation, (two, one, one * [0, 1]), {}, r"\(a, c\) is not detectable.* eigenvalue 1000 "),
        (
            lqg_balanced_truncation,
            (0 * two - np.diag([0, 1.0]), one, one * [0, 1]),
            {},
            "a mode of a on the imaginary axis",
        ),
    ):
        options = options | ({"d": arrays[3]} if len(arrays) > 3 else {})
        with pytest.raises(np.linalg.LinAlgError, match=text):
            f(*arrays[:3], 1, **options)
        assert np.isnan(f(*arrays[:3], 1, errors="nan", **options).values).all()
    for gamma in (0, -1, np.inf, np.nan, True, "2"):
        with pytest.raises((ValueError, TypeError), match="gamma must be a positive number"):
            bounded_real_balanced_truncation(*stable[:3], 1, gamma=gamma)
    for f in (lqg_balanced_truncation, bounded_real_balanced_truncation):
        for order in (0, 5, True, 1.0):
            with pytest.raises(ValueError, match=f"{f.__name__}: order must be a whole number from 1 to 4"):
                f(*stable[:3], order)


def test_batches_and_units(rng):
    members = [model(rng), model(rng, shift=1.0)]
    stacked = [np.stack([x, y, np.nan * x]) for x, y in zip(*members, strict=True)]
    for f, options in ((lqg_balanced_truncation, {}), (bounded_real_balanced_truncation, {"gamma": 1e3})):
        found = f(*stacked[:3], 2, d=stacked[3], errors="nan", **options)
        assert all(np.isnan(x[2]).all() for x in found)
        k = 0 if f is lqg_balanced_truncation else 1
        alone = f(*members[k][:3], 2, d=members[k][3], **options)
        for x, y in zip(found, alone, strict=True):
            np.testing.assert_array_equal(x[k], y)
        for power in (-300, 300):  # another unit of time
            a, b, c, d = members[k]
            moved = f(np.ldexp(a, power), np.ldexp(b, power // 2), np.ldexp(c, power // 2), 2, d=d, **options)
            for x, y, e in zip(moved, alone, (power, power // 2, power // 2, 0, 0), strict=True):
                np.testing.assert_array_equal(x, np.ldexp(y, e))


def test_no_inputs_and_superfluous_states(rng):
    a, b, c, _ = model(rng, shift=1.0)
    for f in (lqg_balanced_truncation, bounded_real_balanced_truncation):
        nothing = f(a, b[:, :0], c, 2)
        assert (nothing.b.shape, nothing.d.shape) == ((2, 0), (2, 0))
        np.testing.assert_array_equal(nothing.values, np.zeros(4))
        wide = np.kron(np.eye(2), a), np.vstack([b, 0 * b]) / 100, np.hstack([c, c])
        small = f(*wide, 6)
        assert small.values[4] < 1e-13
        assert np.linalg.matrix_rank(small.b) <= 4
        assert np.linalg.norm(small.c[:, 4:]) == 0
        assert hinf_norm(*difference((*wide, np.zeros((2, 2))), small))[0] < 1e-12


def test_models_come_back_in_their_class(rng):
    arrays = model(rng, shift=1.0)
    sys = scipy.signal.StateSpace(*arrays)
    for f, options in ((lqg_balanced_truncation, {}), (bounded_real_balanced_truncation, {"gamma": 1e3})):
        found, expected = f(sys, 2, **options), f(*arrays[:3], 2, d=arrays[3], **options)
        assert type(found) is type(sys)
        for x, y in zip((found.A, found.B, found.C, found.D), expected, strict=False):
            np.testing.assert_array_equal(x, y)
