"""Strongly unstable plants with few inputs: their solutions are well conditioned, their closed loops are not."""

import decimal

import numpy as np
import pytest

import truth
from matrices import gaussian
from matsign import SpectrumError, certify, solve_continuous_are, solve_discrete_are
from matsign.equations.riccati import decimal_doubling
from matsign.linalg import decimal_matrices

BOTH = pytest.mark.parametrize("f", [solve_continuous_are, solve_discrete_are], ids=["continuous", "discrete"])
I1, I3 = np.eye(1), np.eye(3)
EPS = 2.0**-52

LOST = [  # each with its error in working precision
    ([[-8, -4, 3], [-4, -8, -4], [8, 3, -4]], [[0], [0], [1]], I3),  # 1.7e-8
    (
        [[9, 7, 3, 8, -6], [-9, 1, 7, 8, 7], [6, 3, 7, 2, 8], [8, -4, 6, -7, -6], [2, 8, 8, 1, -9]],
        [[0], [0], [0], [0], [1]],
        np.eye(5),
    ),  # 1.3e-4
    ([[-2000, -1000], [-8000, -9000]], [[3], [-2]], np.diag([1.0, 0.0])),  # negative definite
]


def reference(f, a, b, q, r):
    """By doubling in 200 digits, because 80 digits do not suffice for a projector here; the residual verifies it."""
    with decimal_matrices.precision(200):
        x = decimal_doubling._double_problem(
            f is solve_discrete_are, False, [*map(decimal_matrices.from_floats, (a, b, q, r)), None, None]
        )[0]
        a, b, q, r = map(decimal_matrices.from_floats, (a, b, q, r))
        if f is solve_discrete_are:
            gain = decimal_matrices.inverse(r + b.T @ x @ b) @ (b.T @ x @ a)
            left = a.T @ x @ (a - b @ gain) - x + q
        else:
            left = a.T @ x + x @ a - x @ b @ decimal_matrices.inverse(r) @ b.T @ x + q
        assert decimal_matrices.size(left) < decimal.Decimal("1e-30") * decimal_matrices.size(x)
    return x


def error(x, answer):
    with decimal_matrices.precision(200):
        return float(
            decimal_matrices.size(decimal_matrices.from_floats(np.asarray(x)) - answer) / decimal_matrices.size(answer)
        )


def integers(rng):
    """A random plant of integers with one or two inputs."""
    n, m = rng.integers(2, 7), rng.integers(1, 3)
    a, b = rng.integers(-9, 10, (n, n)).astype(float), rng.integers(-9, 10, (n, m)).astype(float)
    q = np.eye(n) if rng.random() < 0.5 else np.diag((np.arange(n) == 0).astype(float))
    return a, b if rng.random() < 0.5 else np.eye(n)[:, -m:], q, np.eye(m)


def scaled(rng):
    a, b, q, r = integers(rng)
    return a * 1000, b, q, r * 10.0 ** rng.integers(-3, 4)


def strong(rng):
    return rng.standard_normal((8, 8)) + 4 * np.eye(8), rng.standard_normal((8, 1)), np.eye(8), I1


@pytest.mark.parametrize(("a", "b", "q"), LOST)
def test_what_was_lost(a, b, q, eager):
    a, b = np.array(a, float), np.array(b, float)
    x = np.asarray(eager(solve_discrete_are, a, b, q, I1))
    assert error(x, reference(solve_discrete_are, a, b, q, I1)) < 1e-12
    assert np.linalg.eigvalsh(x)[0] > -1e-14 * np.linalg.norm(x)


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize(("draw", "count"), [(integers, 40), (scaled, 20), (strong, 6)])
def test_every_digit_and_an_honest_certificate(f, draw, count):
    """The condition numbers are below 1e4; the errors of the best other solvers are up to 1."""
    rng = np.random.default_rng(5)
    for _ in range(count):
        plant = draw(rng)
        x, certificate = certify(f)(*plant)
        missed = error(x, reference(f, *plant))
        assert missed < 1e-11
        assert missed < 30 * certificate.forward_error + 3e-16
        assert certificate.forward_error < 1e-9
        assert not certificate.boundary
        assert np.linalg.eigvalsh(x)[0] > -1e-14 * np.linalg.norm(x)


@BOTH
def test_single_precision(f):
    rng = np.random.default_rng(6)
    for _ in range(10):
        plant = [m.astype("float32") for m in integers(rng)]
        x, certificate = certify(f)(*plant)
        missed = error(x, reference(f, *plant))
        assert missed < 1e-3
        assert missed < 30 * certificate.forward_error + 2e-7
        assert not certificate.boundary


@pytest.mark.slow
@BOTH
def test_complex_plants(f):
    rng = np.random.default_rng(7)
    for _ in range(4):
        a, b, q, r = integers(rng)
        a, b = a + 1j * rng.integers(-9, 10, a.shape), b + 1j * rng.integers(-9, 10, b.shape)
        x = f(a, b, q, r)
        assert truth.error(x, truth_of(f)(a, b, q, r, np.eye(len(a)), 0 * b)) < 1e-12


def truth_of(f):
    return truth.discrete_are if f is solve_discrete_are else truth.continuous_are


def test_members_of_a_batch_do_not_see_each_other():
    rng = np.random.default_rng(8)
    members = [strong(rng) for _ in range(2)] + [(0.1 * gaussian(rng, 8, 8), gaussian(rng, 8, 1), np.eye(8), I1)] * 2
    members[3] = (np.diag(np.arange(2.0, 10.0)), np.zeros((8, 1)), np.eye(8), I1)  # not stabilisable
    stack = [np.stack(parts) for parts in zip(*members, strict=True)]
    x = solve_discrete_are(*stack, errors="nan")
    for k, member in enumerate(members):
        np.testing.assert_array_equal(x[k], solve_discrete_are(*member, errors="nan"))
    assert np.isfinite(x[:3]).all()
    assert np.isnan(x[3]).all()


@pytest.mark.parametrize("q", [np.eye(2), np.diag([1.0, 0.0])])
def test_a_pole_at_one_beside_one_at_1e10(q):
    a, b = np.array([[2.2e-6, -4.9e-6], [4.9e9, 1.7e10]]), np.array([[1.1], [0.0]])
    x, certificate = certify(solve_continuous_are)(a, b, q, I1)
    missed = error(x, reference(solve_continuous_are, a, b, q, I1))
    assert missed < 1e-14
    assert missed < 30 * certificate.forward_error + 1e-16
    assert not certificate.boundary


def test_delays_without_a_price_of_the_input(eager):
    """The zero of the plant at -1 becomes a pole of the closed loop: the solution is on the boundary; it is known."""
    a, b, q = np.array([[1, 0.1, 0.005], [0, 1, 0.1], [0, 0, 0]]), I3[:, 2:], np.diag([1.0, 0.0, 0.0])
    v = np.array([1, 0.1, 0.005])
    for turned in (I3, np.linalg.qr(np.arange(9.0).reshape(3, 3) + I3)[0]):
        plant = (turned @ a @ turned.T, turned @ b, turned @ q @ turned.T, np.zeros((1, 1)))
        x, certificate = certify(solve_discrete_are)(
            *(eager.array((m + m.T) / 2 if k == 2 else m) for k, m in enumerate(plant))
        )
        np.testing.assert_allclose(turned.T @ np.asarray(x) @ turned, q + np.outer(v, v), atol=2e-6)
        assert certificate.boundary


@BOTH
def test_no_solution_stays_none(f):
    """Decimal arithmetic finds no solution for an indefinite cost or an uncontrollable mode."""
    with pytest.raises(SpectrumError, match="no stabilising solution"):
        f(0.5 * I1 if f is solve_discrete_are else 0 * I1, I1, -I1, I1)
    with pytest.raises(SpectrumError, match="not stabilisable"):
        f(np.diag([3.0, 2.0]), np.array([[1.0], [0.0]]), np.eye(2), I1)


def test_the_best_iterate_comes_with_the_error():
    """For a plant too large for decimal arithmetic; with ``errors="nan"`` it is NaN."""
    rng = np.random.default_rng(9)
    plant = rng.standard_normal((40, 40)) / 3 + 2 * np.eye(40), rng.standard_normal((40, 1)), np.eye(40), I1
    with pytest.raises(SpectrumError, match="backward error of the best iterate") as caught:
        solve_continuous_are(*plant)
    assert np.isfinite(caught.value.value).all()
    assert np.isnan(solve_continuous_are(*plant, errors="nan")).all()


SEEN = (  # had an error of 2.2e-14 with a certificate of 4e-16
    np.array([[-1.0, 6, -2], [-3, -6, 3], [-6, 8, 9]]),
    [
        [12450.134747413907, -361578.66947677755, 0.0031191850160603987],
        [-361578.66947677755, 147386799.08653608, -0.11768942746366906],
        [0.0031191850160603987, -0.11768942746366906, 1.2836268769357817e-08],
    ],
    [
        [0.09191462259185454, 0.024404100145353384, -0.07355576223206073, 0.005221994171991808],
        [0.024404100145353384, 0.006986180877338701, -0.020883338228888666, 0.0007300352973641068],
        [-0.07355576223206073, -0.020883338228888666, 0.06252990178302206, -0.0024010422062317317],
        [0.005221994171991808, 0.0007300352973641068, -0.0024010422062317317, 0.001180951996581748],
    ],
)


def test_certificate_where_working_precision_cannot_solve_with_the_weight(rng):
    """Two inputs with the same effect and a small r make r + bᴴ x b singular in working precision."""
    plants = [SEEN]
    for _ in range(10):
        factor = gaussian(rng, 4, 4)
        plants.append(
            (np.round(5 * gaussian(rng, 3, 3)), np.diag(10.0 ** rng.uniform(-8, 8, 3)), factor @ factor.T / 1e3)
        )
    b = np.array([[0.0], [0.0], [1.0]]) * np.ones(4)
    for a, q, r in plants:
        q, r = np.array(q), (np.array(r) + np.array(r).T) / 2
        x, certificate = certify(solve_discrete_are)(a, b, q, r)
        error = truth.error(x, truth.discrete_are(a, b, q, r, I3, 0 * b))
        assert error < 30 * max(certificate.forward_error, EPS)


@pytest.mark.slow
def test_cross_term_along_inputs_that_b_hides(rng):
    """With equal inputs, single precision loses r = 1e-10, and so s r⁻¹ sᴴ, a hundred times the solution."""
    for _ in range(20):
        a, s = 0.3 * gaussian(rng, 4, 4), 0.1 * gaussian(rng, 4, 3)
        b = np.outer([1.0, 8, 0, -8], [8.0, 5, 2])
        plant = [x.astype("float32") for x in (a, b, 1.4e6 * np.eye(4), 1e-10 * np.eye(3), np.eye(4), s)]
        try:
            x, certificate = certify(solve_discrete_are)(*plant)
        except SpectrumError:  # the cost is indefinite
            continue
        assert truth.error(x, truth.discrete_are(*plant)) < 30 * max(certificate.forward_error, 2.0**-23)


@BOTH
def test_single_precision_is_solved_in_double_where_it_does_not_suffice(f, rng):
    """Each member is accurate to its dtype, alone and in a stack."""
    a = (gaussian(rng, 40, 4, 4) + 3 * np.eye(4)).astype(np.float32)
    b, q, r = gaussian(rng, 40, 4, 1).astype(np.float32), np.eye(4, dtype=np.float32), np.eye(1, dtype=np.float32)
    x = f(a, b, q, r)
    assert x.dtype == np.float32
    for k in range(0, 40, 8):
        assert error(x[k], reference(f, *(m.astype(float) for m in (a[k], b[k], q, r)))) < 4 * 2.0**-23
        np.testing.assert_array_equal(f(a[k], b[k], q, r), x[k])


def test_large_plants_are_right_to_the_last_digits(rng):
    """One Newton step with a double-word residual leaves only rounding errors; a second step to verify it is not needed."""
    n = 24
    a, b = gaussian(rng, n, n), gaussian(rng, n, n // 8)
    q, r = np.eye(n), np.eye(n // 8)
    assert error(solve_continuous_are(a, b, q, r), reference(solve_continuous_are, a, b, q, r)) < 2 * EPS


def test_a_solution_that_hides_the_weight_of_the_inputs():
    """r + bᴴ x b has a condition number beyond double words: the residual of a wrong x was 2e-16, and so its error estimate."""
    a = np.array([[0.587, -108, -8.53e15], [0.00465, 0.385, -1.23e13], [-3.44e-16, 3.17e-15, -2.15]])
    b, r = np.array([[1.0, 1], [1, -1], [1, -1]]), 1e-3 * np.eye(2)
    x, certificate = certify(solve_discrete_are)(a, b, I3, r)
    exact = truth.discrete_are(a, b, I3, r, I3, 0 * b).astype(float)
    assert np.abs(x - exact).max() < 1e-14 * np.abs(exact).max()
    assert certificate.forward_error < 1e-14
