"""State-space models, sparse matrices, vectors and numbers in place of matrices."""

import inspect
import timeit

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import scipy.sparse

import matsign
from matsign import dlqr, lqe, lqr
from matsign.core.objects import MAX_SPARSE, takes_model

A = np.array([[0, 1.0, 0], [-1, -1, 0.5], [0, 0, -2]])
B, C, D = np.array([[0.0], [1], [1]]), np.array([[1.0, 0, 0]]), np.zeros((1, 1))
Q = np.diag([1.0, 2, 3])
F = scipy.linalg.expm(A / 10)  # in discrete time

CONTINUOUS = (
    "lqr",
    "lqe",
    "gramian",
    "lyapunov_factor",
    "h2_norm",
    "hinf_norm",
    "hankel_singular_values",
    "balanced_truncation",
    "lqg_balanced_truncation",
    "riccati_factor",
)
DISCRETE = ("dlqr", "dlqe", "discrete_gramian", "discrete_lyapunov_factor", "discrete_h2_norm", "discrete_hinf_norm")
BOTH = ("hankel_singular_values", "balanced_truncation")  # take the kind of time from the model
# What follows the model in a call, and the matrices for which the model stands.
AFTER = {"lqr": (Q, 0.1), "dlqr": (Q, 0.1), "lqe": (1, 0.1), "dlqe": (1, 0.1), "balanced_truncation": (2,)}
AFTER["lqg_balanced_truncation"] = (2,)
STANDS_FOR = {
    "lqr": "AB",
    "dlqr": "AB",
    "gramian": "AB",
    "discrete_gramian": "AB",
    "lyapunov_factor": "AB",
    "discrete_lyapunov_factor": "AB",
    "discrete_h2_norm": "ABCD",
    "hinf_norm": "ABCD",
    "discrete_hinf_norm": "ABCD",
}


def of_scipy(a, dt=None, d=D):
    return scipy.signal.StateSpace(a, B, C, d, **({} if dt is None else {"dt": dt}))


def of_control(a, dt=0, d=D):
    control = pytest.importorskip("control")
    return control.StateSpace(a, B, C, d, dt, inputs=["force"], outputs=["place"])


def models(discrete):
    """Models of both libraries; python-control's dt = None leaves the kind of time open."""
    a = F if discrete else A
    dts = (
        {of_scipy: (0.1, True), of_control: (0.1, True, None)}
        if discrete
        else {of_scipy: (None,), of_control: (0, None)}
    )
    return [make(a, dt) for make, times in dts.items() for dt in times]


def assert_same(value, expected):
    if hasattr(value, "A"):
        value = (value.A, value.B, value.C)
    for x, y in zip(*(t if isinstance(t, tuple) else (t,) for t in (value, expected)), strict=False):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", CONTINUOUS + DISCRETE)
def test_models(name):
    f, after = getattr(matsign, name), AFTER.get(name, ())
    for model in models(name in DISCRETE):
        matrices = [getattr(model, x) for x in STANDS_FOR.get(name, "ABC")]
        expected, certificate = matsign.certify(f)(*matrices, *after)
        assert_same(f(model, *after), expected)
        value, its_certificate = matsign.certify(f)(model, *after)
        assert_same(value, expected)
        assert its_certificate.backward_error == certificate.backward_error
        assert matsign.condition(f)(model, *after) == matsign.condition(f)(*matrices, *after)


@pytest.mark.parametrize("name", [x for x in CONTINUOUS + DISCRETE if x not in BOTH])
def test_models_in_the_other_kind_of_time(name):
    f, after, discrete = getattr(matsign, name), AFTER.get(name, ()), name in DISCRETE
    found, wanted = ("continuous", "discrete") if discrete else ("discrete", "continuous")
    pairs = dict(zip(CONTINUOUS[:6], DISCRETE, strict=True)) | dict(zip(DISCRETE, CONTINUOUS, strict=False))
    remedy = f"use {pairs[name]}" if name in pairs else f"this function is for {wanted} time"
    for model in models(not discrete):
        if model.dt is None and type(model).__module__.startswith("control"):
            continue
        with pytest.raises(ValueError, match=rf"^{name}: sys is a model in {found} time \(dt = .*\); {remedy}"):
            f(model, *after)


def test_a_model_comes_back_in_its_class_with_its_feedthrough():
    d = np.array([[3.0]])
    for model in (of_scipy(A, d=d), of_control(A, d=d), of_control(A, None, d)):
        small = matsign.balanced_truncation(model, order=2)
        assert type(small) is type(model)
        assert small.dt == model.dt
        np.testing.assert_array_equal(small.D, d)
        steady = matsign.balanced_truncation(model, order=2, method="matchdc")
        np.testing.assert_array_equal(steady.D, matsign.balanced_truncation(A, B, C, 2, d=d, method="matchdc").d)
        assert d != steady.D
        assert getattr(small, "input_labels", ["force"]) == ["force"]
    assert isinstance(matsign.balanced_truncation(A, B, C, 2), matsign.Reduced)


def test_models_bring_their_kind_of_time():
    values, small = matsign.hankel_singular_values(F, B, C, dt=0.1), matsign.balanced_truncation(F, B, C, 2, dt=True)
    for model in models(discrete=True):
        given = {} if model.dt is not None else {"dt": 0.1}
        np.testing.assert_array_equal(matsign.hankel_singular_values(model, **given), values)
        reduced, _ = matsign.certify(matsign.balanced_truncation)(model, 2, **given)
        assert_same(reduced, small)
        assert (type(reduced), reduced.dt) == (type(model), model.dt)
        np.testing.assert_array_equal(matsign.hankel_singular_values(model, dt=True), values)
        if model.dt is not None:
            with pytest.raises(ValueError, match=r"^hankel_singular_values: dt is 0, but that of sys is (0.1|True)$"):
                matsign.hankel_singular_values(model, dt=0)
    for model in (of_scipy(A), of_control(A)):
        with pytest.raises(ValueError, match=r"^balanced_truncation: dt is 0.2, but that of sys is (0|None)$"):
            matsign.balanced_truncation(model, 2, dt=0.2)
    with pytest.raises(ValueError, match=r"dt is 0.2, but that of sys is 0.1$"):
        matsign.hankel_singular_values(of_scipy(F, 0.1), dt=0.2)
    with pytest.raises(TypeError, match=r"^balanced_truncation: d is given, but sys has a D of its own$"):
        matsign.balanced_truncation(of_scipy(A), 2, d=np.ones((1, 1)))


def test_frechet_takes_models_as_directions():
    move = of_scipy(A[::-1].copy())
    expected = matsign.frechet(lqr)(A, B, Q, 1, move.A, move.B, Q, None)
    assert_same(matsign.frechet(lqr)(of_scipy(A), Q, 1, move, Q, None), expected)
    still = matsign.frechet(lqr)(A, B, Q, 1, None, None, Q, None)
    assert_same(matsign.frechet(lqr)(of_scipy(A), Q, 1, None, Q, None), still)
    small = matsign.frechet(matsign.balanced_truncation)(of_scipy(A), move, order=2)
    assert_same(small, matsign.frechet(matsign.balanced_truncation)(A, B, C, D, move.A, B, C, D, order=2))
    with pytest.raises(TypeError, match=r"^lqr: sys is a model and its direction of type ndarray"):
        matsign.frechet(lqr)(of_scipy(A), Q, 1, A, Q, None)


def test_models_that_do_not_fit():
    fed_through = of_scipy(A, d=np.ones((1, 1)))
    with pytest.raises(ValueError, match=r"^lqe: sys has a D that is not zero; .* nn$"):
        lqe(fed_through, 1, 1)
    with pytest.raises(ValueError, match=r"^h2_norm: sys has a D that is not zero; its H₂ norm is infinite$"):
        matsign.h2_norm(fed_through)
    with pytest.raises(TypeError, match=r"^lqr: sys is a TransferFunctionContinuous; .* pass its to_ss\(\)$"):
        lqr(scipy.signal.TransferFunction([1], [1, 1]), 1, 1)
    with pytest.raises(TypeError, match=r"^lqr: b is of type StateSpaceContinuous"):
        lqr(A, of_scipy(A), Q, 1)
    with pytest.raises(TypeError, match=r"^mcsgn: M is of type StateSpaceContinuous"):
        matsign.mcsgn(of_scipy(A))
    with pytest.raises(TypeError, match=r"^lqr\(\) missing 1 required positional argument: 'r'"):
        lqr(of_scipy(A), Q)
    with pytest.raises(TypeError, match=r"^lqr\(\) got multiple values for argument 'b'"):
        lqr(of_scipy(A), q=Q, r=1, b=B)
    with pytest.raises(ValueError, match=r"^lqr: q has shape \(2, 2\), expected \(\.\.\., n, n\) with n = 3 from a"):
        lqr(of_scipy(A), np.eye(2), 1)


def test_other_models_of_python_control():
    control = pytest.importorskip("control")
    with pytest.raises(
        TypeError, match=r"^lqr: sys is a TransferFunction; .* pass control\.ss of it, or control\.linearize$"
    ):
        lqr(control.tf([1], [1, 1]), 1, 1)


def test_a_class_derived_from_a_model_of_python_control():
    control = pytest.importorskip("control")

    class Plant(control.StateSpace):
        def __init__(self):
            super().__init__(A, B, C, D)

    assert_same(lqr(Plant(), Q, 1), lqr(A, B, Q, 1))
    assert type(matsign.balanced_truncation(Plant(), 2)) is control.StateSpace


def test_results_beside_python_control():
    control = pytest.importorskip("control")
    model, discrete = of_control(A), of_control(F, 0.1)
    for ours, theirs in (
        (lqr(model, Q, 0.1), control.lqr(model, Q, 0.1)),
        (dlqr(discrete, Q, 0.1), control.dlqr(discrete, Q, 0.1)),
        (lqe(model, 2, 0.1), control.lqe(model, 2, 0.1)),
    ):
        for x, y in zip(ours[:2], theirs[:2], strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-13)


def test_numbers_and_vectors(on):
    """A number is that multiple of the identity, a vector the diagonal of a weight, a column or a row."""
    a, b, c, q = (on.array(x) for x in (A, B, C, Q))
    r, column, row, diagonal = (on.array(np.array(x)) for x in ([[0.1]], B[:, 0], C[0], Q.diagonal()))
    expected = lqr(a, b, q, r)
    for gain in (lqr(a, column, diagonal, 0.1), lqr(a, [0, 1, 1], [1, 2, 3], [0.1]), lqr(a, b, q, r[0, 0])):
        assert_same(map_numpy(gain), map_numpy(expected))
    assert_same(map_numpy(lqr(a, b, 2, r)), map_numpy(lqr(a, b, 2 * on.array(np.eye(3)), r)))
    assert_same(map_numpy(lqe(a, column, row, 1.0, 0.1)), map_numpy(lqe(a, b, c, r / 0.1, r)))
    assert_same(map_numpy(lqr(a, column, q, r, column)), map_numpy(lqr(a, b, q, r, b)))


def map_numpy(value):
    return tuple(np.asarray(x) for x in value)


def test_vectors_of_every_equation():
    diagonal, column, row = Q.diagonal(), B[:, 0], C[0]
    for f in (matsign.solve_continuous_are, matsign.solve_discrete_are):
        assert_same(f(F, column, diagonal, 0.1), f(F, B, Q, np.array([[0.1]])))
    for f, a in ((matsign.lyapunov_factor, A), (matsign.discrete_lyapunov_factor, F), (matsign.gramian, A)):
        assert_same(f(a, column), f(a, B))
    for f in (matsign.hankel_singular_values, matsign.h2_norm):
        assert_same(f(A, column, row), f(A, B, C))
    assert_same(matsign.certify(lqr)(A, column, diagonal, 1)[0], lqr(A, B, Q, np.eye(1)))
    assert_same(matsign.frechet(lqr)(A, B, Q, 1, None, None, [1, 0, 0], 1), derivative_by_weights())


def derivative_by_weights():
    return matsign.frechet(lqr)(A, B, Q, np.eye(1), None, None, np.diag([1.0, 0, 0]), np.eye(1))


def test_infinite_weights_make_no_other_entry_infinite():
    with pytest.raises(matsign.SpectrumError, match="NaN or infinity"):
        lqr(A, B, [1, np.inf, 1], 1)
    with pytest.raises(matsign.SpectrumError, match="NaN or infinity"):
        lqr(A, B, np.inf, 1)


def test_batches_of_vectors_are_not_guessed():
    with pytest.raises(ValueError, match=r"^lqr: b has shape \(2, 3\), expected \(\.\.\., n, m\) with n = 3 from a"):
        lqr(np.stack([A, A]), np.ones((2, 3)), Q, 1)
    with pytest.raises(ValueError, match=r"^lqr: q has shape \(2, 3\)"):
        lqr(np.stack([A, A]), B, np.ones((2, 3)), 1)


def test_vectors_of_the_wrong_length():
    for arguments, text in (
        (
            (A, B, [1, 2], 1),
            r"q has shape \(2,\), expected \(\.\.\., n, n\) or \(n,\) for a diagonal with n = 3 from a",
        ),
        ((A, [1, 2], Q, 1), r"b has shape \(2,\), expected \(\.\.\., n, m\) or \(n,\) for a column with n = 3 from a"),
    ):
        with pytest.raises(ValueError, match=f"^lqr: {text}"):
            lqr(*arguments)
    with pytest.raises(ValueError, match=r"^lqe: c has shape \(2,\), .* or \(n,\) for a row with n = 3 from a"):
        lqe(A, B, [1, 2], 1, 1)


def test_python_numbers_keep_the_precision(on):
    a, b = (on.array(x.astype("float32")) for x in (A, B))
    assert "float32" in str(lqr(a, b, 1, 0.1).gain.dtype)
    assert "float32" in str(lqr(a, b, np.float32(1) if on.name == "numpy" else 1.0, 1).solution.dtype)
    assert lqr(A.astype(int), B.astype(int), 1, 0.1).gain.dtype == np.float64
    assert lqr(A, B, 1, 1, 0.1j * np.ones((3, 1))).gain.dtype == np.complex128


def test_the_same_call_with_numbers_again():
    """Numbers are not part of the plan of a call."""
    for r in (0.1, 0.1, 0.2):
        assert_same(matsign.solve_continuous_are(A, B, Q, r), matsign.solve_continuous_are(A, B, Q, np.array([[r]])))


def test_gradients_by_vectors_and_numbers():
    torch = pytest.importorskip("torch")
    a, b, q = (torch.tensor(x, dtype=torch.float64) for x in (A, B[:, 0], Q.diagonal()))
    r = torch.tensor(0.1, dtype=torch.float64)
    variables = [x.clone().requires_grad_() for x in (b, q, r)]
    lqr(a, *variables).gain.sum().backward()
    matrices = [x.clone().requires_grad_() for x in (b[:, None], torch.diag(q), r.reshape(1, 1))]
    lqr(a, *matrices).gain.sum().backward()
    for x, y in zip(variables, matrices, strict=True):
        z = torch.diagonal(y.grad) if x.ndim < y.grad.ndim and y.grad.shape == (3, 3) else y.grad.reshape(x.shape)
        torch.testing.assert_close(x.grad, z)


@pytest.mark.compiles
def test_vectors_and_numbers_in_jax():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        gain = jax.jit(lambda a, b, q, r: lqr(a, b, q, r).gain)(A, B[:, 0], Q.diagonal(), 0.1)
        np.testing.assert_allclose(gain, lqr(A, B, Q, 0.1).gain, rtol=1e-12)


KINDS = ("csr_array", "csc_matrix", "coo_array", "dia_matrix", "lil_array", "dok_matrix", "bsr_array")


def test_sparse_matrices(on):
    for kind in KINDS:
        m = getattr(scipy.sparse, kind)(A.T @ A)
        assert_same(matsign.sqrtm(m), matsign.sqrtm(A.T @ A))
    m = scipy.sparse.csr_array(A)
    assert_same(map_numpy(lqr(m, on.array(B), Q.tolist(), 1)), map_numpy(lqr(*(on.array(x) for x in (A, B, Q)), 1)))
    assert_same(lqr(m, scipy.sparse.csr_array(B), scipy.sparse.diags_array([1.0, 2, 3]), 1), lqr(A, B, Q, 1))
    assert matsign.sqrtm(scipy.sparse.eye_array(2, dtype=int)).dtype == np.float64
    assert_same(m.toarray(), A)


def test_sparse_matrices_that_are_too_large():
    large = scipy.sparse.eye_array(MAX_SPARSE + 1)
    with pytest.raises(
        TypeError, match=r"^sqrtm: A is a sparse matrix of 4001 × 4001 \(dia_array\), .* 4000 rows and .*toarray"
    ):
        matsign.sqrtm(large)
    with pytest.raises(TypeError, match=r"^lyapunov_factor: b is a sparse matrix of 4001 × 1"):
        matsign.lyapunov_factor(A, large.tocsc()[:, :1])


def test_signatures_are_those_of_matrices():
    assert list(inspect.signature(lqr).parameters)[:4] == ["a", "b", "q", "r"]
    assert list(inspect.signature(matsign.certify(lqr)).parameters)[:4] == ["a", "b", "q", "r"]


def test_models_cost_other_calls_nothing():
    """The test for a model takes less than a microsecond, and no library is imported for it."""

    def f(a, b):
        return a

    g = takes_model("AB", discrete=False)(f)
    times = [min(timeit.repeat(lambda h=h: h(A, B), number=1000, repeat=20)) / 1000 for h in (f, g)]
    assert times[1] - times[0] < 5e-6  # measured: 0.2 µs; a busy machine takes longer
