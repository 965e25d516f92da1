"""Hard, unsolvable or badly scaled algebraic Riccati equations: an accurate answer and certificate, or the reason why not."""

import mpmath as mp
import numpy as np
import pytest
import scipy.linalg as sl
from hypothesis import given
from hypothesis import strategies as st

import matsign
import truth
from matrices import adjoint, gaussian, similar
from matsign import SpectrumError, certify, solve_continuous_are, solve_discrete_are

BOTH = pytest.mark.parametrize("f", [solve_continuous_are, solve_discrete_are], ids=["continuous", "discrete"])
TRUTH = {solve_continuous_are: truth.continuous_are, solve_discrete_are: truth.discrete_are}
I1, I2, I3 = np.eye(1), np.eye(2), np.eye(3)
ZERO = np.zeros((1, 1))


def exact(f, a, b, q, r, e=None, s=None):
    e = np.eye(len(a)) if e is None else e
    return TRUTH[f](a, b, q, r, e, np.zeros_like(b) if s is None else s)


def cost(rng, n, m, dtype="float64"):
    """q, r, s of a positive definite cost."""
    w = gaussian(rng, n + m, n + m, dtype=dtype)
    w = w @ adjoint(w) + 0.1 * np.eye(n + m)
    w = (w + adjoint(w)) / 2
    return w[:n, :n], w[n:, n:], w[:n, n:]


def closed_loop(f, x, a, b, r, e=None, s=None):
    """Eigenvalues of the closed loop."""
    e, s = np.eye(len(a)) if e is None else e, np.zeros_like(b) if s is None else s
    if f is solve_continuous_are:
        k = np.linalg.solve(r, adjoint(b) @ x @ e + adjoint(s))
    else:
        k = np.linalg.solve(r + adjoint(b) @ x @ b, adjoint(b) @ x @ a + adjoint(s))
    return sl.eigvals(a - b @ k, e)


def inside(f, values):
    return values.real < 0 if f is solve_continuous_are else np.abs(values) < 1


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 5),
    m=st.integers(1, 7),
    dtype=st.sampled_from(["float64", "complex128"]),
    with_e=st.booleans(),
    with_s=st.booleans(),
    f=st.sampled_from([solve_continuous_are, solve_discrete_are]),
)
def test_hermitian_stabilising_and_certified(seed, n, m, dtype, with_e, with_s, f):
    rng = np.random.default_rng(seed)
    a, b = gaussian(rng, n, n, dtype=dtype), gaussian(rng, n, m, dtype=dtype)
    q, r, s = cost(rng, n, m, dtype)
    e = np.eye(n) + 0.2 * gaussian(rng, n, n, dtype=dtype) if with_e else None
    s = s if with_s else None
    x, certificate = certify(f)(a, b, q, r, e, s)
    np.testing.assert_array_equal(x, adjoint(x))
    assert inside(f, closed_loop(f, x, a, b, r, e, s)).all()
    assert certificate.backward_error < 1e-13
    error = truth.error(x, exact(f, a, b, q, r, e, s))
    assert error < 30 * certificate.forward_error + 1e-15
    assert not certificate.boundary


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("size", [0.02, 0.2])
def test_with_e_where_scipy_balances_wrongly(f, size, rng):
    """Well-posed problems with e near I on most of which SciPy's default raises or is silently wrong."""
    for _ in range(5):
        n = 6
        a, b, (q, r, _) = gaussian(rng, n, n), gaussian(rng, n, 2), cost(rng, n, 2)
        e = np.eye(n) + size * gaussian(rng, n, n)
        x = f(a, b, q, r, e)
        assert truth.error(x, exact(f, a, b, q, r, e)) < 1e-10


@BOTH
@pytest.mark.parametrize("method", ["doubling", "sign", "qz", "auto"])
def test_every_method_on_larger_problems(f, method, eager, rng):
    a, b, (q, r, s) = gaussian(rng, 30, 30) / 6, gaussian(rng, 30, 7), cost(rng, 30, 7)
    x = eager(f, a, b, q, r, None, s, method=method)
    reference = getattr(sl, f.__name__)(a, b, q, r, None, s, balanced=False)
    np.testing.assert_allclose(x, reference, atol=1e-9 * np.abs(reference).max())


@BOTH
def test_states_in_unlike_units(f, rng):
    """Units of 1e±12 of the states change only the units of the answer."""
    a, b = gaussian(rng, 3, 3), gaussian(rng, 3, 2)
    units = np.diag([2.0**40, 1.0, 2.0**-40])
    back = np.linalg.inv(units)
    x = f(a, b, I3, I2)
    y, certificate = certify(f)(units @ a @ back, units @ b, back @ back, I2)
    np.testing.assert_allclose(units @ y @ units, x, rtol=1e-12)
    assert certificate.forward_error < 1e-12


@BOTH
@pytest.mark.parametrize("s", [1e100, 1e-100])
def test_units_of_inputs_cost_and_descriptor(f, s, rng):
    a, b, (q, r, c) = gaussian(rng, 3, 3), gaussian(rng, 3, 2), cost(rng, 3, 2)
    e = I3 + 0.1 * gaussian(rng, 3, 3)
    x = f(a, b, q, r, e, c)
    for given_, factor in (
        ((a, s * b, q, s * s * r if s < 1 else s * r * s, e, s * c), 1),  # inputs
        ((a, b, s * q, s * r, e, s * c), s),  # cost
    ):
        np.testing.assert_allclose(f(*given_) / factor, x, rtol=1e-11, atol=1e-12 * np.abs(x).max())
    if f is solve_continuous_are:
        y = f(s**0.5 * a, b, s**0.5 * q, r / s**0.5, e, c)  # time
        np.testing.assert_allclose(y, x, rtol=1e-11, atol=1e-12 * np.abs(x).max())


NOT_STABILISABLE = [
    (solve_continuous_are, np.diag([1.0, -1.0])),
    (solve_continuous_are, np.diag([0.0, -1.0])),
    (solve_discrete_are, np.diag([2.0, 0.5])),
    (solve_discrete_are, np.diag([1.0, 0.5])),
]


@pytest.mark.parametrize(("f", "a"), NOT_STABILISABLE)
def test_not_stabilisable_is_said(f, a, eager):
    b = np.array([[0.0], [1.0]])
    with pytest.raises(SpectrumError, match=r"\(a, b\) is not stabilisable"):
        eager(f, a, b, I2, I1)
    rotation = sl.qr(np.arange(4.0).reshape(2, 2) + I2)[0]
    with pytest.raises(SpectrumError, match=r"\(a, b\) is not stabilisable"):
        eager(f, rotation @ a @ rotation.T, rotation @ b, I2, I1)


@pytest.mark.parametrize(
    ("f", "a"), [(solve_continuous_are, ZERO), (solve_discrete_are, I1), (solve_discrete_are, -I1)]
)
def test_a_mode_on_the_boundary_that_costs_nothing_is_flagged(f, a, eager):
    """The limit of stabilising solutions, zero, is returned with `boundary` set in its certificate."""
    x, certificate = certify(f)(*(eager.array(y) for y in (a, I1, ZERO, I1)))
    assert abs(float(x[0, 0])) < 1e-7
    assert certificate.boundary
    assert certificate.separation < 1e-7


@BOTH
def test_an_unstable_mode_that_costs_nothing_is_stabilised(f):
    """Not detectable, but off the boundary: the stabilising solution mirrors the mode."""
    a, b = np.diag([2.0, -0.25]), np.array([[1.0], [0.0]])
    x, certificate = certify(f)(a, b, np.zeros((2, 2)), I1)
    np.testing.assert_allclose(x, np.diag([4.0 if f is solve_continuous_are else 3.0, 0.0]), atol=1e-14)
    assert not certificate.boundary


def test_an_unstable_mode_without_input_or_cost():
    a, b = np.diag([2.0, 0.25]), np.array([[1.0], [0.0]])
    with pytest.raises(SpectrumError, match="not stabilisable"):
        solve_continuous_are(a, b, np.zeros((2, 2)), I1)


@pytest.mark.parametrize(
    ("f", "arguments"),
    [
        (solve_continuous_are, (ZERO, I1, -I1, I1)),
        (solve_continuous_are, (np.diag([-0.5, -3.0]), np.ones((2, 1)), -10 * I2, I1)),
        (solve_discrete_are, (0.5 * I1, I1, -1 * I1, I1)),
    ],
)
def test_indefinite_cost_without_a_solution(f, arguments, eager):
    with pytest.raises(SpectrumError, match="no stabilising solution"):
        eager(f, *arguments)


@pytest.mark.parametrize(
    ("f", "arguments"),
    [
        (solve_continuous_are, (-3 * I2, np.ones((2, 1)), -I2, I1)),  # indefinite q
        (solve_continuous_are, (-I2, I2, I2, np.diag([1.0, -2.0]))),  # indefinite r, as in H-infinity control
        (solve_discrete_are, (0.5 * I1, I1, -0.05 * I1, I1)),
    ],
)
def test_indefinite_cost_with_a_solution(f, arguments):
    x = f(*arguments)
    assert truth.error(x, exact(f, *arguments)) < 1e-14
    assert inside(f, closed_loop(f, x, arguments[0], arguments[1], arguments[3])).all()


def test_singular_r_and_e_are_named(eager):
    for r in (np.diag([1.0, 0.0]), np.zeros((2, 2)), np.ones((2, 2))):
        with pytest.raises(SpectrumError, match="r is singular"):
            eager(solve_continuous_are, I2, I2, I2, r)
    for f in (solve_continuous_are, solve_discrete_are):
        with pytest.raises(SpectrumError, match="e is singular"):
            eager(f, I2, I2, I2, I2, np.diag([1.0, 0.0]))
    with pytest.raises(SpectrumError, match="r is singular"):
        eager(solve_discrete_are, I2 + 1, np.ones((2, 2)), I2, np.zeros((2, 2)))


@pytest.mark.parametrize("method", ["auto", "doubling", "sign", "qz"])
def test_singular_r_where_the_discrete_equation_allows_it(method, eager, rng):
    a, b, q, r = singular_r(rng)
    x = eager(solve_discrete_are, a, b, q, r, method=method)
    for k in range(3):
        reference = sl.solve_discrete_are(a, b, q, r[k])
        np.testing.assert_allclose(x[k], reference, atol=1e-10 * np.abs(reference).max())


def test_singular_r_everywhere(on, rng):
    a, b, q, r = singular_r(rng)
    x = on(solve_discrete_are, a, b, q, r)
    np.testing.assert_allclose(x, solve_discrete_are(a, b, q, r), rtol=1e-11)


def singular_r(rng):
    a, b, (q, _, _) = gaussian(rng, 4, 4), gaussian(rng, 4, 2), cost(rng, 4, 2)
    return a, b, q, np.stack([np.zeros((2, 2)), np.diag([1.0, 0.0]), np.ones((2, 2))])


@pytest.mark.parametrize("tiny", [1e-4, 1e-8, 1e-12])
def test_ill_conditioned_r(tiny, rng):
    a, b, (q, _, _) = gaussian(rng, 4, 4), gaussian(rng, 4, 2), cost(rng, 4, 2)
    r = np.diag([1.0, tiny])
    for f in (solve_continuous_are, solve_discrete_are):
        x, certificate = certify(f)(a, b, q, r)
        error = truth.error(x, exact(f, a, b, q, r))
        assert error < 30 * certificate.forward_error + 1e-15
        assert error < 1e-6


@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-10, 1e-14])
def test_poles_near_the_boundary(distance):
    """An undamped oscillator with a weak input, and a discrete mode just inside the unit circle."""
    oscillator = np.array([[0.0, 1.0], [-1.0, 0.0]]), np.array([[0.0], [1.0]]), distance**2 * I2, I1
    decay = (1 - distance) * I1, I1, distance**2 * I1, I1
    for f, arguments in ((solve_continuous_are, oscillator), (solve_discrete_are, decay)):
        x, certificate = certify(f)(*arguments)
        error = truth.error(x, exact(f, *arguments))
        assert error < 30 * certificate.forward_error + 1e-15
        assert error < 100 * np.finfo(float).eps / distance
        assert certificate.boundary or distance > 1e-12


@pytest.mark.parametrize("weak", [1e-3, 1e-6])
@BOTH
def test_a_mode_that_is_hardly_steered(f, weak):
    a, b = np.diag([1.5, 0.2]), np.array([[weak], [1.0]])
    x, certificate = certify(f)(a, b, I2, I1)
    error = truth.error(x, exact(f, a, b, I2, I1))
    assert error < 1e-10
    assert error < 30 * certificate.forward_error + 1e-15


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("condition", [1e2, 1e4])
def test_far_from_normal(f, condition, rng):
    a = similar(rng, np.diag(rng.uniform(-1, 1, 6)), condition)
    b, (q, r, _) = gaussian(rng, 6, 2), cost(rng, 6, 2)
    x, certificate = certify(f)(a, b, q, r)
    answer = exact(f, a, b, q, r)
    error = truth.error(x, answer)
    assert error < 1e-13 + 10 * truth.error(getattr(sl, f.__name__)(a, b, q, r), answer)
    assert error < 30 * certificate.forward_error + 1e-15


@pytest.mark.slow
@BOTH
def test_members_have_the_bits_that_they_have_alone(f, rng):
    """The other members are easy, unsolvable, singular, NaN or slow."""
    for n, m in ((1, 1), (3, 2), (8, 4), (17, 5), (40, 3)):
        members = []
        for _ in range(6):
            a, b, (q, r, s) = gaussian(rng, n, n), gaussian(rng, n, m), cost(rng, n, m)
            members.append([a, b, q, r, np.eye(n) + 0.1 * gaussian(rng, n, n) / n, s])
        members[1][1] = 0 * members[1][1]  # not stabilisable
        members[1][0] = 3 * np.eye(n)
        members[2][0] = np.nan * members[2][0]
        members[3][3] = 0 * members[3][3]  # r = 0
        if n != 17:  # there decimals would take 2 seconds for each
            members[4][2] = 1e-12 * members[4][2]
        stack = [np.stack(x) for x in zip(*members, strict=True)]
        x = f(*stack, errors="nan")
        for k, member in enumerate(members):
            np.testing.assert_array_equal(x[k], f(*member, errors="nan"))


@BOTH
def test_q_or_r_not_hermitian(f, rng):
    a, b, (q, r, _) = gaussian(rng, 3, 3), gaussian(rng, 3, 2), cost(rng, 3, 2)
    for name, bad in (("q", (a, b, q + np.triu(I3 + 1, 1), r)), ("r", (a, b, q, r + np.triu(I2 + 1, 1)))):
        with pytest.raises(ValueError, match=f"^{f.__name__}: {name} is not Hermitian"):
            f(*bad)
    # One member does not hide another one.
    for other in (q * np.nan, 1e20 * q):
        with pytest.raises(ValueError, match=f"^{f.__name__}: q is not Hermitian"):
            f(a, b, np.stack([q + np.triu(I3 + 1, 1), other]), r, errors="nan")
    # For NaN the error names the members, as in every function.
    with pytest.raises(SpectrumError, match="NaN"):
        f(a, b, q * np.nan, r)


@BOTH
def test_numbers_and_scipys_positional_arguments(f):
    reference = getattr(sl, f.__name__)
    np.testing.assert_allclose(f(2.0, 1.0, 3.0, 4.0), reference(2.0, 1.0, 3.0, 4.0), rtol=1e-14)
    arguments = (I2 + 1, I2, I2, I2, I2, 0 * I2, False)
    np.testing.assert_allclose(f(*arguments), reference(*arguments), rtol=1e-13)


def test_errors_nan_and_partial_results(eager, rng):
    a, b = np.stack([I2, np.diag([1.0, -1.0])]), np.array([[0.0], [1.0]])
    a[0] = gaussian(rng, 2, 2)
    x = eager(solve_continuous_are, a, b, I2, I1, errors="nan")
    assert np.isnan(x[1]).all()
    assert np.isfinite(x[0]).all()
    with pytest.raises(SpectrumError) as error:
        eager(solve_continuous_are, a, b, I2, I1)
    assert error.value.members == [(1,)]
    np.testing.assert_array_equal(np.asarray(error.value.value)[0], x[0])


@pytest.mark.compiles
def test_unstabilisable_under_a_trace_is_nan():
    jax = pytest.importorskip("jax")
    a = np.stack([np.diag([1.0, -1.0]), np.diag([0.5, -1.0])])
    b = np.stack([[[0.0], [1.0]], [[1.0], [1.0]]])
    x = np.asarray(jax.jit(lambda a, b: solve_continuous_are(a, b, jax.numpy.eye(2), jax.numpy.eye(1)))(a, b))
    assert np.isnan(x[0]).all()
    np.testing.assert_allclose(x[1], solve_continuous_are(a[1], b[1], I2, I1), rtol=1e-12)


def test_kept_in_the_flat_namespace():
    assert {"solve_continuous_are", "solve_discrete_are", "lqr", "dlqr"} <= set(matsign.__all__)


@pytest.mark.parametrize(
    ("a", "q", "r"), [(1e12, 1e30, 1.0), (1e12, 1.0, 1e-30), (1e8, 1.0, 1.0), (1e20, 1e60, 1.0), (1e50, 1.0, 1.0)]
)
def test_discrete_scalars_whose_terms_cancel(a, q, r):
    """The residual is a² times smaller than its terms: in working precision it has no correct digit."""
    x, certificate = certify(solve_discrete_are)(*(np.array([[y]]) for y in (a, 1.0, q, r)))
    with mp.workdps(300):
        a, q, r = mp.mpf(a), mp.mpf(q), mp.mpf(r)
        half = (q + a * a * r - r) / 2
        error = float(abs(mp.mpf(float(x[0, 0])) / (half + mp.sqrt(half * half + q * r)) - 1))
    assert error < 4e-16
    assert max(error, 1e-17) < certificate.forward_error < 1e-13


@BOTH
def test_a_certificate_is_never_zero(f, rng):
    for _ in range(40):
        plant = (np.array([[float(y)]]) for y in (rng.integers(-5, 6), *rng.integers(1, 6, 3)))
        assert 1e-17 < certify(f)(*plant)[1].forward_error < 1e-12


def test_weights_that_rounding_makes_singular(rng):
    """r + bᴴ x b has no correct digit of r; x and its certificate are accurate."""
    a = gaussian(rng, 3, 3)
    b = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    plant = [y.astype("float32") for y in (a, b, 20 * np.eye(3), np.array([[6e-11, -5e-11], [-5e-11, 1.2e-10]]))]
    x, certificate = certify(solve_discrete_are)(*plant)
    exact = solve_discrete_are(*(y.astype("float64") for y in plant))
    assert np.linalg.norm(x - exact) < 1e-3 * np.linalg.norm(exact)
    assert certificate.backward_error < 1e-5
    assert certificate.forward_error < 1


def test_a_large_solution_beside_a_regular_r():
    """r + bᴴ x b is singular to working precision by the size of b alone, and x is q."""
    plant = (np.array([[4.0]]), np.array([[953.0, 0.0, 15660.0]]), np.array([[7.6e-7]]), 1e-6 * np.eye(3))
    x, certificate = certify(solve_discrete_are)(*(y.astype("float32") for y in plant))
    assert abs(x[0, 0] / solve_discrete_are(*plant)[0, 0] - 1) < 1e-6
    assert certificate.forward_error < 1e-3


def test_a_descriptor_is_regular_in_other_units():
    """The descriptor of a plant with states in very different units is regular."""
    a = np.array([[-0.36, 2.5e13], [-3.6e-14, 0.73]], "float32")
    b = np.array([[-7e5, -11.0], [1.2e-8, 2.6e-8]], "float32")
    e = np.array([[1.17, 0.575], [-0.06, 0.87]], "float32")
    plant = (a, b, np.eye(2, dtype="float32"), np.eye(2, dtype="float32"), e)
    x, certificate = certify(solve_continuous_are)(*plant)
    assert truth.error(x, truth.continuous_are(*plant, 0 * b)) < max(30 * certificate.forward_error, 1e-6)
