"""coupled_root and geometric_mean."""

from functools import partial

import mpmath
import numpy as np
import pytest
import scipy.linalg as sl

import direct
import matsign
import truth
from accuracy import assert_accurate
from matrices import adjoint, definite, exactly_similar, gaussian, graded, stable, unitary, with_singular_values
from matsign import SpectrumError, coupled_root, geometric_mean, mcsgn, msign, sqrtm_pair


def _roots_by_schur(a, b):
    z = np.linalg.inv(direct.root_by_schur(b @ a))
    return a @ z


def _mean_by_schur(a, b):
    return a @ direct.root_by_schur(np.linalg.solve(a, b))


def _mean_by_eigh(a, b):
    r, z = direct.root_by_eigh(a), direct.inverse_root_by_eigh(a)
    inner = z @ b @ z
    return r @ direct.root_by_eigh((inner + adjoint(inner)) / 2) @ r


PAIRS = {
    "definite": lambda rng: (definite(rng, 4), definite(rng, 4)),
    "complex": lambda rng: (definite(rng, 4, dtype="complex128"), definite(rng, 4, dtype="complex128")),
    "ill-conditioned": lambda rng: (definite(rng, 4, 1e5), definite(rng, 4, 1e5)),
    "not definite": lambda rng: (definite(rng, 4), stable(rng, 4)),
    "1 x 1": lambda rng: (np.array([[4.0]]), np.array([[9.0]])),
    "equal": lambda rng: 2 * (definite(rng, 4),),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_accuracy(name, rng):
    make = lambda: PAIRS[name](rng)  # noqa: E731
    condition = max(np.linalg.cond(x) for x in make()) ** 2
    assert_accurate(
        lambda a, b: coupled_root(a, b)[0], lambda a, b: truth.coupled_root(a, b)[0], [_roots_by_schur], make, condition
    )
    peers = [_mean_by_schur] + [_mean_by_eigh] * (name != "not definite")
    assert_accurate(geometric_mean, truth.geometric_mean, peers, make, condition)


def test_mean_is_symmetric_and_lies_between(on, rng):
    a, b = definite(rng, 4), definite(rng, 4)
    g = on(geometric_mean, a, b)
    np.testing.assert_allclose(g, on(geometric_mean, b, a), atol=1e-13)
    np.testing.assert_array_equal(g, g.T)
    np.testing.assert_allclose(np.linalg.det(g) ** 2, np.linalg.det(a) * np.linalg.det(b), rtol=1e-12)
    np.testing.assert_allclose(g @ np.linalg.inv(b) @ g, a, atol=1e-12)


def test_mean_of_powers_and_of_a_congruence(rng):
    a, b, p = definite(rng, 4), definite(rng, 4), gaussian(rng, 4, 4)
    np.testing.assert_allclose(geometric_mean(a, a), a, atol=1e-14)
    np.testing.assert_allclose(geometric_mean(a, np.linalg.inv(a)), np.eye(4), atol=1e-12)
    np.testing.assert_allclose(geometric_mean(p @ a @ p.T, p @ b @ p.T), p @ geometric_mean(a, b) @ p.T, atol=1e-11)


def test_mean_is_a_coupled_root(on, rng):
    a, b = definite(rng, 4), definite(rng, 4)
    np.testing.assert_allclose(on(geometric_mean, a, b), on(coupled_root, a, np.linalg.inv(b))[0], atol=1e-12)


def test_coupled_root_contains_the_others(on, rng):
    """B = I: roots. B = Aᴴ: msign. B = A: mcsgn."""
    a, identity = stable(rng, 4), np.eye(4)
    for x, y in zip(on(coupled_root, a, identity), on(sqrtm_pair, a), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-12)
    m = gaussian(rng, 4, 4)
    np.testing.assert_allclose(on(coupled_root, m, m.T)[0], on(msign, m), atol=1e-10)
    s = mcsgn(a - 1e-3 * identity)
    np.testing.assert_allclose(on(coupled_root, a - 1e-3 * identity, a - 1e-3 * identity)[0], s, atol=1e-10)


def test_coupled_root_where_ba_is_singular(on, rng):
    """(BA)^{-1/2} is then the inverse root in the sense of Drazin."""
    u = unitary(rng, 4)
    a, b = (u * np.array([4.0, 9, 1, 0])) @ u.T, np.eye(4)
    c, d = on(coupled_root, a, b, rtol=1e-12)
    np.testing.assert_allclose(c, (u * np.array([2.0, 3, 1, 0])) @ u.T, atol=1e-10)
    np.testing.assert_allclose(d, (u * np.array([0.5, 1 / 3, 1, 0])) @ u.T, atol=1e-10)


@pytest.mark.parametrize("similarity", [False, True])
def test_negative_eigenvalue_of_ba_is_an_error(similarity, on, rng):
    b, a = np.diag([-1.0, 2, 3]), np.eye(3)
    b = exactly_similar(rng, b)[0] if similarity else b
    with pytest.raises(matsign.SpectrumError, match="negative"):
        on(coupled_root, a, b)
    with pytest.raises(matsign.SpectrumError, match="geometric mean"):
        on(geometric_mean, a, b)


@pytest.mark.parametrize("which", ["a", "b", "both"])
def test_mean_of_singular_matrices(which, on, rng):
    """The limit of the means of definite matrices or an error, never another result."""
    a, b = np.diag([1.0, 2, 3]), np.diag([4.0, 8, 3])
    if which != "b":
        a[1, 1] = 0
    if which != "a":
        b[1, 1] = 0
    try:
        g = on(geometric_mean, a, b)
    except matsign.SpectrumError as error:
        assert "geometric mean" in str(error)  # noqa: PT017
        return
    np.testing.assert_allclose(g, np.sqrt(a * b), atol=1e-7)


@pytest.mark.parametrize(("s", "t"), [(1e100, 1e100), (1e100, 1e-100), (1e-150, 1.0), (3.0, 1e99)])
def test_scales_apart(s, t, rng):
    a, b = definite(rng, 3), definite(rng, 3, dtype="float64") + 0
    root = np.sqrt(s) * np.sqrt(t)
    np.testing.assert_allclose(geometric_mean(s * a, t * b) / root, geometric_mean(a, b), rtol=1e-10)
    ratio = np.sqrt(s) / np.sqrt(t)
    np.testing.assert_allclose(coupled_root(s * a, t * b)[0] / ratio, coupled_root(a, b)[0], rtol=1e-10)


@pytest.mark.parametrize("t", [0.5, 0.3])
def test_definite_pair_in_bad_units(t, rng):
    """D A D and D B D have the mean D (A #ₜ B) D, also where their condition number is 1e24; the certificate covers the error."""
    a, b = definite(rng, 5, 1e2), definite(rng, 5, 1e2)
    d = 2.0 ** -np.array([0, 9, 20, 31, 40])
    g, certificate = matsign.certify(geometric_mean)(d[:, None] * a * d, d[:, None] * b * d, t=t)
    expected = geometric_mean(a, b, t)
    np.testing.assert_allclose(g / d / d[:, None], expected, rtol=1e-11, atol=1e-11 * np.abs(expected).max())
    assert certificate.backward_error < 1e-13
    assert certificate.forward_error < 1e-11


def test_graded_pair(rng):
    """Very different condition numbers: as accurate as the best direct method."""
    make = lambda: (np.diag(graded(4, 1e10)), definite(rng, 4, 1e2))  # noqa: E731
    assert_accurate(geometric_mean, truth.geometric_mean, [_mean_by_schur, _mean_by_eigh], make, 1e12)


def test_coupled_root_is_the_best_of_three(rng):
    """Newton loses digits, the root of BA has a thousand times the error, and the root of AB, a definite matrix, less."""
    for _ in range(5):
        a = with_singular_values(rng, 8, 8, graded(8, 1e6))
        b = np.linalg.inv(a) @ definite(rng, 8, 1e3)
        exact = truth.coupled_root(a, b)
        for x, y in zip(coupled_root(a, b), exact, strict=True):
            assert truth.error(x, y) < 1e-8


def test_coupled_root_of_a_nilpotent_matrix_is_no_nan(rng):
    a = np.diag([1.0, 1], 1)
    answered = 0
    for _ in range(20):
        b = gaussian(rng, 3, 3)
        try:
            c, _ = coupled_root(a, b, rtol=0.0)
        except matsign.SpectrumError:
            continue
        answered += 1
        assert np.linalg.norm(c @ b @ c - a) < 1e-8
    assert answered


def test_mean_with_a_nearly_singular_matrix_is_the_same_both_ways_round():
    a, b = np.array([[2.0, 1], [1, 3]]), np.array([[1, 0.5], [1, 0.5 + 1e-12]])
    exact = truth.geometric_mean(a, b)
    for pair in ((a, b), (b, a)):
        assert truth.error(geometric_mean(*pair), exact) < 1e-9


@pytest.mark.parametrize("exactly", [True, False])
def test_mean_of_semidefinite_matrices_with_a_common_range(exactly, eager, rng):
    for _ in range(5):
        u = unitary(rng, 6)[:, :3]
        inner = definite(rng, 3), definite(rng, 3)
        a, b = (u @ x @ u.T for x in inner)
        if exactly:
            a, b = (a + a.T) / 2, (b + b.T) / 2
        expected = u @ geometric_mean(*inner) @ u.T
        for pair in ((a, b), (b, a)):
            g, certificate = eager(matsign.certify(geometric_mean), *pair)
            np.testing.assert_allclose(g, expected, atol=1e-13)
            assert float(certificate.forward_error) < 1e-11


def test_mean_of_a_semidefinite_and_a_definite_matrix(on, rng):
    u = unitary(rng, 4)[:, :2]
    a, b = u @ u.T, definite(rng, 4)
    a = (a + a.T) / 2
    g = on(geometric_mean, a, b)
    np.testing.assert_allclose(g @ np.linalg.inv(b) @ g, a, atol=1e-12)
    np.testing.assert_allclose(g, on(geometric_mean, b, a), atol=1e-12)


def test_texts_of_means_that_are_none(rng):
    u, v = unitary(rng, 4)[:, :2], unitary(rng, 4)[:, :2]
    with pytest.raises(matsign.SpectrumError, match="the range of neither contains that of the other"):
        geometric_mean(u @ u.T, v @ v.T)
    with pytest.raises(matsign.SpectrumError, match="has the eigenvalue -4 on the negative real axis"):
        geometric_mean(np.diag([1.0, -4]), np.eye(2))
    nilpotent = np.diag([1.0], 1)
    with pytest.raises(matsign.SpectrumError, match="both singular"):
        geometric_mean(nilpotent, nilpotent)


@pytest.mark.parametrize("name", PAIRS)
def test_forward_errors_are_not_below_the_true_ones(name, rng):
    for _ in range(4):
        pair = PAIRS[name](rng)
        exact = (truth.coupled_root(*pair), (truth.geometric_mean(*pair),))
        for f, expected in zip((coupled_root, geometric_mean), exact, strict=True):
            value, certificate = matsign.certify(f)(*pair)
            value = value if f is coupled_root else (value,)
            true = max(truth.error(x, y) for x, y in zip(value, expected, strict=True))
            assert true / 30 <= certificate.forward_error < 1e6 * max(true, 1e-16)
            assert certificate.backward_error < 1e-10


@pytest.mark.parametrize("scale", [1.0, 2.0, 3.0, 1e-5])
@pytest.mark.parametrize("small", [1e-3, 1e-11, 1e-13])
def test_the_mean_of_definite_matrices_has_the_same_bits_in_either_order(scale, small, eager):
    a, b = np.array([[3.0, 1.0], [1.0, 2.0]]), scale * np.array([[1.0, 0.3], [0.3, 0.09 + small]])
    np.testing.assert_array_equal(eager(matsign.geometric_mean, a, b), eager(matsign.geometric_mean, b, a))


def test_certificate_of_single_precision_matrices_with_parts_far_apart(rng):
    """With a backward error of 0.1 the forward error is no smaller, whatever a first-order step says."""
    for _ in range(50):
        units = 10.0 ** rng.uniform(-7, 7, 3)
        a = (units[:, None] * gaussian(rng, 3, 3) / units).astype("float32")
        b = (np.linalg.pinv(a.astype(float)) @ definite(rng, 3)).astype("float32")
        try:
            (c, _), certificate = matsign.certify(coupled_root)(a, b)
        except matsign.SpectrumError:
            continue
        c, left = c.astype(float), a.astype(float)
        left = np.linalg.norm(c @ b @ c - left) / (np.linalg.norm(c @ b @ c) + np.linalg.norm(left))
        assert left < 30 * max(certificate.forward_error, 1e-6)


def test_pairs_on_the_branch_cut_to_rounding_are_an_error(rng):
    """Rounding decides on which side of the cut an eigenvalue of B⁻¹A lies: the two means differ in the first digit."""
    for _ in range(40):
        v, b = gaussian(rng, 3, 3, dtype="complex128"), gaussian(rng, 3, 3, dtype="complex128")
        units = 10.0 ** rng.uniform(-1.5, 1.5, 3)
        m = v @ np.diag([-0.05, -0.003, 0.004]) @ np.linalg.inv(v)
        a, b = ((units[:, None] * x).astype("complex64") for x in (b @ m, b))
        with pytest.raises(matsign.SpectrumError):
            geometric_mean(a, b, rtol=0.0)


def test_a_coupled_root_beyond_the_range_of_its_dtype_is_an_error():
    a, b = np.diag([1e30, 1e38]).astype(np.float32), np.diag([1e-30, 1e-44]).astype(np.float32)
    with pytest.raises(SpectrumError, match="larger than the largest"):
        coupled_root(a, b)


WEIGHTS = (0.1, 0.25, 1 / 3, 0.75)


def _truth_at(t):
    return lambda a, b: truth.exact(a) @ truth.power(truth.inverse(truth.exact(a)) @ truth.exact(b), t)


def _weighted_by_eigh(t):
    def f(a, b):
        low = np.linalg.cholesky(a)
        y = np.linalg.solve(low, np.linalg.solve(low, b).conj().T)
        values, v = np.linalg.eigh((y + adjoint(y)) / 2)
        half = low @ v * values ** (t / 2)
        return half @ adjoint(half)

    return f


def _weighted_by_scipy(t):
    return lambda a, b: a @ sl.fractional_matrix_power(np.linalg.solve(a, b), t)


@pytest.mark.slow
@pytest.mark.parametrize("t", WEIGHTS)
@pytest.mark.parametrize("name", [*PAIRS, "graded"])
def test_accuracy_of_weighted_means(name, t, rng):
    pairs = PAIRS | {"graded": lambda rng: (np.diag(graded(4, 1e10)), definite(rng, 4, 1e2))}
    make = lambda: pairs[name](rng)  # noqa: E731
    condition = max(np.linalg.cond(x) for x in make()) ** 2
    peers = [_weighted_by_scipy(t)] + [_weighted_by_eigh(t)] * (name != "not definite")
    assert_accurate(partial(geometric_mean, t=t), _truth_at(t), peers, make, condition)


def test_weighted_means_are_points_of_a_geodesic(on, rng):
    a, b = definite(rng, 4), definite(rng, 4, 100.0)
    for t in (0.25, 0.6):
        g = on(geometric_mean, a, b, t=t)
        np.testing.assert_allclose(g, on(geometric_mean, b, a, t=1 - t), atol=1e-13)
        np.testing.assert_array_equal(g, g.T)
        halves = geometric_mean(a, g)
        np.testing.assert_allclose(on(geometric_mean, a, b, t=t / 2), halves, atol=1e-13)
        logarithms = [np.log(np.linalg.det(x)) for x in (a, b, g)]
        np.testing.assert_allclose(logarithms[2], (1 - t) * logarithms[0] + t * logarithms[1], rtol=1e-11)
    np.testing.assert_array_equal(on(geometric_mean, a, b, t=0.5), on(geometric_mean, a, b))
    np.testing.assert_array_equal(on(geometric_mean, a, b, t=0), a)
    np.testing.assert_array_equal(on(geometric_mean, a, b, t=1), b)
    np.testing.assert_allclose(
        on(geometric_mean, np.eye(4), b, t=0.3), matsign.fractional_matrix_power(b, 0.3), atol=1e-13
    )


def test_the_ends_are_copies(rng):
    a, b = definite(rng, 3), definite(rng, 3)
    g = geometric_mean(a, b, 0)
    g[0, 0] = 7
    assert a[0, 0] != 7


def test_weighted_means_of_semidefinite_matrices(on, rng):
    """The limit of the means of definite ones, where the range of one contains that of the other."""
    u = unitary(rng, 4)
    d, e = np.array([4.0, 3, 2, 1]), np.array([5.0, 2, 0, 0])
    a, b = ((u * x) @ u.T for x in (d, e))
    a, b = (a + a.T) / 2, (b + b.T) / 2
    for t in (0.2, 0.7):
        limit = (u * (d ** (1 - t) * e**t)) @ u.T
        np.testing.assert_allclose(on(geometric_mean, a, b, t=t), limit, atol=1e-12)
        np.testing.assert_allclose(on(geometric_mean, b, a, t=1 - t), limit, atol=1e-12)
        _, certificate = matsign.certify(geometric_mean)(a, b, t=t)
        assert certificate.backward_error < 1e-14
    with pytest.raises(SpectrumError, match="range of neither"):
        on(geometric_mean, np.diag([1.0, 0]), np.diag([0.0, 1]), t=0.3)


@pytest.mark.parametrize(("s", "r"), [(1e100, 1e100), (1e200, 1e-200), (3.0, 1e-99)])
def test_weighted_means_in_any_units(s, r, rng):
    a, b = definite(rng, 3), definite(rng, 3)
    expected = _truth_at(0.3)(s * a, r * b)
    assert truth.error(geometric_mean(s * a, r * b, 0.3), expected) < 1e-13


def test_weighted_means_in_single_precision(eager, rng):
    a, b = definite(rng, 4, dtype="float32"), definite(rng, 4, dtype="float32")
    g = eager(geometric_mean, a, b, t=0.3)
    assert g.dtype == np.float32
    assert truth.error(g, _truth_at(0.3)(a, b)) < 1e-5


@pytest.mark.parametrize("t", [-0.1, 1.5, np.nan, np.inf, True, "half", 1j, None])
def test_weights_that_are_refused(t):
    with pytest.raises(ValueError, match=r"geometric_mean: t must be a number (from 0 to 1|of at least 0), got"):
        geometric_mean(np.eye(2), np.eye(2), t)


def test_weighted_means_of_pairs_without_one(eager, rng):
    a, b = definite(rng, 3), np.diag([1.0, -2, 3])
    for dtype in ("float64", "complex128"):
        with pytest.raises(SpectrumError, match="no geometric mean"):
            eager(geometric_mean, a.astype(dtype), b.astype(dtype), t=0.3)
    np.testing.assert_allclose(eager(geometric_mean, -a, -2 * a, t=0.3), -(2**0.3) * a, rtol=1e-12)  # both indefinite


def _graded_apart(rng, n, size, dtype="float64"):
    grades = 10.0 ** np.linspace(-size, size, n)
    a, b = definite(rng, n, dtype=dtype), definite(rng, n, dtype=dtype)
    return a * np.outer(grades, grades), b / np.outer(grades, grades)


@pytest.mark.parametrize("t", [0.5, 0.3])
def test_pairs_graded_in_opposite_orders(t, eager, rng):
    """Every entry has all digits, as has the derivative; n A #_t n B for the direction A, B."""
    for dtype, size in (("float64", 8), ("float64", 20), ("complex128", 12)):
        a, b = _graded_apart(rng, 3, size, dtype)
        g, certificate = eager(matsign.certify(geometric_mean), a, b, t=t)
        with mpmath.workdps(260):
            exact = _mean_by_cholesky(a, b, t)
            error = max(
                abs(mpmath.mpmathify(complex(g[i, j])) - exact[i, j]) / mpmath.sqrt(abs(exact[i, i] * exact[j, j]))
                for i in range(3)
                for j in range(3)
            )
        assert error < 1e-15
        assert 1e-17 < certificate.forward_error < 1e-13
        step = eager(matsign.frechet(geometric_mean), a, b, a, 2 * b, t=t)
        np.testing.assert_allclose(step, (1 + t) * g, rtol=1e-14)


def test_gradient_of_a_graded_pair_is_the_adjoint_of_the_tangent(rng):
    torch = pytest.importorskip("torch")
    a, b = _graded_apart(rng, 3, 8)
    x, y = (torch.tensor(m, requires_grad=True) for m in (a, b))
    grades = 10.0 ** np.linspace(-1.6, 1.6, 3)
    weight = torch.tensor(definite(rng, 3) / np.outer(grades**2, grades**2))
    da, db = a * definite(rng, 3), b * definite(rng, 3)
    step = matsign.frechet(geometric_mean)(a, b, da, db, t=0.3)
    bars = torch.autograd.grad((geometric_mean(x, y, 0.3) * weight).sum(), (x, y))
    found = (bars[0] * torch.tensor(da)).sum() + (bars[1] * torch.tensor(db)).sum()
    np.testing.assert_allclose(float(found), np.sum(step * weight.numpy()), rtol=1e-12)


def _mean_by_cholesky(a, b, t):
    a, b = mpmath.matrix(a.tolist()), mpmath.matrix(b.tolist())
    low = mpmath.cholesky((a + a.H) / 2)
    inverse = mpmath.inverse(low)
    y = inverse @ b @ inverse.H
    values, v = mpmath.eighe((y + y.H) / 2)
    return low @ v @ mpmath.diag([x ** mpmath.mpf(t) for x in values]) @ v.H @ low.H


def test_large_pairs_without_common_units_are_named(rng):
    a, b = _graded_apart(rng, 25, 8)
    for t in (0.5, np.array([0.3])):
        with pytest.raises(SpectrumError, match="a and b are positive definite, but graded so differently"):
            geometric_mean(a, b, t)


@pytest.mark.parametrize("t", [0.5, 0.3, "array"])
def test_derivatives_of_semidefinite_pairs(t, rng):
    """Along directions that keep the ranges: equal ranges, and one inside the other."""
    torch = pytest.importorskip("torch")
    t = torch.tensor([0.3], dtype=torch.float64) if t == "array" else t
    u, whole = unitary(rng, 3)[:, :2], torch.from_numpy(definite(rng, 3))
    low, other, u = (torch.from_numpy(x) for x in (definite(rng, 2), definite(rng, 2), u))

    def small(x, shift):
        return u @ (shift + x + x.mT) @ u.mT

    inside = [torch.zeros(2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    outside = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    pairs = [
        (lambda x, y: geometric_mean(small(x, low), small(y, other), t), inside),
        (lambda x, y: geometric_mean(small(x, low), whole + y + y.mT, t), [inside[0], outside]),
    ]
    for f, at in pairs:
        on_range = lambda x, y, f=f: u.mT @ f(x, y) @ u  # noqa: E731
        assert torch.autograd.gradcheck(on_range, at, fast_mode=True, atol=1e-5)
        assert torch.autograd.gradgradcheck(on_range, at, fast_mode=True, atol=1e-4)
    zero = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    (bar,) = torch.autograd.grad(geometric_mean(zero, whole, t).sum(), zero)
    assert (bar == 0).all()


def test_a_weight_for_each_member(on, rng):
    """As one call for each weight; in any units; a certificate for each."""
    a, b = definite(rng, 3), definite(rng, 3)
    t = np.array([0.0, 0.3, 0.5, 1.0])
    g, certificate = on(matsign.certify(geometric_mean), a, b, t)
    for k, weight in enumerate(t):
        np.testing.assert_allclose(g[k], geometric_mean(a, b, float(weight)), rtol=1e-13, atol=1e-15)
        np.testing.assert_array_equal(g[k], on(geometric_mean, a, b, t[k : k + 1])[0])
    assert (certificate.backward_error < 1e-14).all()
    assert (certificate.forward_error < 1e-13).all()


def test_weights_in_arrays_in_any_units(rng):
    a, b, d = definite(rng, 3), definite(rng, 3), np.diag([1e-8, 1.0, 1e9])
    plain = geometric_mean(a, b, [0.3])
    np.testing.assert_allclose(geometric_mean(d @ a @ d, d @ b @ d, [0.3]), d @ plain @ d, rtol=1e-13)
    np.testing.assert_allclose(geometric_mean(1e100 * a, 1e-100 * b, [0.3]) / 1e40, plain, rtol=1e-13)
    np.testing.assert_allclose(geometric_mean(a + 0j, b, [0.3]), plain, rtol=1e-13)
    assert geometric_mean(a.astype("float32"), b.astype("float32"), [0.3]).dtype == np.float32


def test_weights_in_arrays_that_are_refused(rng):
    a = definite(rng, 2)
    with pytest.raises(matsign.SpectrumError, match=r"^geometric_mean: batch members 1, 2: t is 1.5, nan; it must be"):
        geometric_mean(a, a, [0.3, 1.5, np.nan])
    assert np.isnan(geometric_mean(a, a, [0.3, -0.1], errors="nan")).all((1, 2)).tolist() == [False, True]
    low = np.diag([1.0, 0.0])
    g, certificate = matsign.certify(geometric_mean)(a, low, [0.3, 0, 1])
    np.testing.assert_allclose(g, np.stack([geometric_mean(a, low, t) for t in (0.3, 0, 1)]), rtol=1e-14)
    assert (certificate.forward_error < 1e-13).all()
    needed = "with t in an array, A and B must be Hermitian positive semidefinite"
    indefinite = np.diag([100.0, -7.0])
    negative = "is not positive semidefinite: it has the eigenvalue -7"
    for pair, t, text in (
        ((a, np.array([[1.0, 1.0], [0.0, 1.0]])), [0.3], needed),
        ((a, indefinite), [0.3], f"B {negative}"),
        ((indefinite, low), 0.5, f"A {negative}"),
        ((low, indefinite), 0.3, f"B {negative}"),
    ):
        with pytest.raises(matsign.SpectrumError, match=text):
            geometric_mean(*pair, t)
    with pytest.raises(TypeError, match="t has dtype complex128; expected real numbers"):
        geometric_mean(a, a, np.array([1j]))


def test_derivatives_by_the_weight(rng):
    """dG/dt = G log(A⁻¹B), and of second order."""
    torch = pytest.importorskip("torch")
    a, b, t = definite(rng, 3), definite(rng, 3), np.array([0.3, 0.8])
    logarithm = matsign.logm(np.linalg.solve(a, b))
    speed = matsign.frechet(geometric_mean)(a, b, t, None, None, np.ones(2))
    np.testing.assert_allclose(speed, geometric_mean(a, b, t) @ logarithm, atol=1e-13)
    inputs = [torch.from_numpy(x).requires_grad_() for x in (a, b, t)]

    def f(a, b, t):
        return geometric_mean((a + a.mH) / 2, (b + b.mH) / 2, t)

    assert torch.autograd.gradcheck(f, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, inputs, atol=1e-5, fast_mode=True)


@pytest.mark.slow
@pytest.mark.compiles
def test_derivatives_by_the_weight_in_jax(rng):
    jax = pytest.importorskip("jax")
    a, b = definite(rng, 2), definite(rng, 2)
    found = jax.jit(jax.hessian(lambda t: geometric_mean(a, b, t)))(0.3)
    logarithm = matsign.logm(np.linalg.solve(a, b))
    np.testing.assert_allclose(found, geometric_mean(a, b, 0.3) @ logarithm @ logarithm, atol=1e-12)
