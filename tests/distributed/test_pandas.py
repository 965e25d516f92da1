"""Frames of pandas: results have the labels of the arguments."""

import numpy as np
import pytest

import matsign
from matsign import lqr

pd = pytest.importorskip("pandas")

STATES = ["x", "v", "f"]


def frame(x, rows=STATES, columns=STATES):
    return pd.DataFrame(x, index=rows, columns=columns)


A = frame([[0, 1.0, 0], [-1, -1, 0.5], [0, 0, -2]])
B = frame([[0.0], [1], [1]], columns=["u"])
Q = pd.Series([1.0, 2, 3], index=STATES)


def labels(x):
    return list(x.index), list(x.columns)


def test_square_functions():
    m = A.T @ A
    for f in (matsign.sqrtm, matsign.mcsgn, matsign.logm, matsign.psd_project):
        root = f(m)
        assert labels(root) == (STATES, STATES)
        np.testing.assert_array_equal(root, f(m.to_numpy()))
    first, second = matsign.sqrtm_pair(m)
    assert labels(first) == labels(second) == (STATES, STATES)
    value, certificate = matsign.certify(matsign.sqrtm)(m)
    assert labels(value) == (STATES, STATES)
    assert certificate.converged
    assert labels(matsign.frechet(matsign.sqrtm)(m, m)) == (STATES, STATES)
    assert matsign.condition(matsign.sqrtm)(m) == matsign.condition(matsign.sqrtm)(m.to_numpy())
    assert labels(matsign.each(matsign.sqrtm)({"m": m, "n": m})["n"]) == (STATES, STATES)


def test_rectangles():
    m = frame(np.arange(6.0).reshape(3, 2) + np.eye(3, 2), columns=["p", "q"])
    u, h = matsign.polar(m)
    assert labels(u) == (STATES, ["p", "q"])
    assert labels(h) == (["p", "q"], ["p", "q"])
    assert labels(matsign.msign(m, steps=3)) == (STATES, ["p", "q"])
    assert labels(matsign.msign(pd.DataFrame(np.eye(2)))) == ([0, 1], [0, 1])


def test_several_matrices():
    gain, solution, poles = lqr(A, B, Q, 0.1)
    assert labels(gain) == (["u"], STATES)
    assert labels(solution) == (STATES, STATES)
    assert type(poles) is np.ndarray
    expected = lqr(A.to_numpy(), B.to_numpy(), np.diag(Q), 0.1)
    np.testing.assert_array_equal(gain, expected.gain)
    only_states = lqr(A, B.to_numpy(), Q, 0.1)
    assert type(only_states.gain) is np.ndarray
    assert labels(only_states.solution) == (STATES, STATES)
    assert labels(lqr(A, pd.Series([0.0, 1, 1], index=STATES), Q, 0.1).solution) == (STATES, STATES)
    assert labels(matsign.lqe(A, B, pd.Series([1.0, 0, 0], index=STATES), 1, 1).solution) == (STATES, STATES)
    assert matsign.hankel_singular_values(A, B, B.T).shape == (3,)
    batch = matsign.solve_continuous_lyapunov(A, np.stack([np.eye(3)] * 2))
    assert type(batch) is np.ndarray


def test_rows_and_columns_may_have_names_of_their_own():
    rates = ["dx", "dv", "df"]
    a, b = frame(A.to_numpy(), rows=rates), frame(B.to_numpy(), rows=rates, columns=["u"])
    assert labels(lqr(a, b, Q, 0.1).gain) == (["u"], STATES)
    with pytest.raises(ValueError, match=r"^lqr: the rows of b \['a', 'b', 'c'\] have other labels than .* of a"):
        lqr(a, frame(B.to_numpy(), rows=["a", "b", "c"], columns=["u"]), Q, 0.1)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: lqr(A, B, Q[["v", "x", "f"]], 0.1),
            r"lqr: the rows of q \['v', 'x', 'f'\] have other labels than .* of a",
        ),
        (lambda: lqr(A, B.loc[["v", "x", "f"]], Q, 0.1), r"lqr: the rows of b .* bring them into one order"),
        (lambda: matsign.sqrtm(A[["v", "x", "f"]]), r"sqrtm: the columns of A .* than the rows of A"),
        (
            lambda: matsign.frechet(matsign.sqrtm)(A, A.loc[["v", "x", "f"]]),
            r"sqrtm: the rows of dA .* than the rows of A",
        ),
    ],
)
def test_labels_in_another_order_are_an_error(call, text):
    with pytest.raises(ValueError, match=f"^{text}"):
        call()


def test_what_is_not_a_matrix_of_numbers():
    with pytest.raises(TypeError, match=r"^msign: M has dtype object"):
        matsign.msign(A.assign(x="text"))
    with pytest.raises(ValueError, match=r"^sqrtm: A has shape \(3,\), expected \(\.\.\., n, n\)"):
        matsign.sqrtm(Q)
    with pytest.raises(matsign.SpectrumError, match="NaN or infinity"):
        matsign.sqrtm(A.where(A != 1.0))
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"^solve_sylvester: all arrays must come from one library; b is torch"):
        matsign.solve_sylvester(A, torch.eye(3), A)


def test_beside_arrays_with_an_adapter_of_their_own():
    xr = pytest.importorskip("xarray")
    a = xr.DataArray(np.stack([A.to_numpy()] * 2), dims=("k", "i", "j"))
    gain = lqr(a, B, Q.tolist(), 0.1).gain
    np.testing.assert_array_equal(gain[1], lqr(A, B, Q, 0.1).gain)


def test_frames_do_not_change():
    before = A.copy()
    value = matsign.matrix_abs(A)
    value.iloc[:, :] = 0
    pd.testing.assert_frame_equal(A, before)
