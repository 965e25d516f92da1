"""An H∞ controller with published digits: the example of SLICOT's SB10FD, by the formulas of Glover and Doyle (1988).

Zhou, Doyle & Glover 1996, theorem 17.1, has the formulas. The published controller has another basis of its states, so transfer
functions are compared.
"""

import numpy as np
import pytest

from matsign import SpectrumError, hinf_norm, solve_continuous_are

A = np.array(
    [
        [-1.0, 0, 4, 5, -3, -2],
        [-2, 4, -7, -2, 0, 3],
        [-6, 9, -5, 0, 2, -1],
        [-8, 4, 7, -1, -3, 0],
        [2, 5, 8, -9, 1, -4],
        [3, -5, 8, 0, 2, -6],
    ]
)
B = np.array(
    [
        [-3.0, -4, -2, 1, 0],
        [2, 0, 1, -5, 2],
        [-5, -7, 0, 7, -2],
        [4, -6, 1, 1, -2],
        [-3, 9, -8, 0, 5],
        [1, -2, 3, -6, -2],
    ]
)
C = np.array(
    [[1.0, -1, 2, -4, 0, -3], [-3, 0, 5, -1, 1, 1], [-7, 5, 0, -8, 2, -2], [9, -3, 4, 0, 3, 7], [0, 1, -2, 1, -6, -2]]
)
D = np.array([[1.0, -2, -3, 0, 0], [0, 4, 0, 1, 0], [5, -3, -4, 0, 1], [0, 1, 0, 1, -3], [0, 0, 1, 7, 1]])
# A, B, C and D of the published controller for γ = 15.
PUBLISHED = (
    np.array(
        [
            [-2.8043, 14.7367, 4.6658, 8.1596, 0.0848, 2.5290],
            [4.6609, 3.2756, -3.5754, -2.8941, 0.2393, 8.2920],
            [-15.3127, 23.5592, -7.1229, 2.7599, 5.9775, -2.0285],
            [-22.0691, 16.4758, 12.5523, -16.3602, 4.4300, -3.3168],
            [30.6789, -3.9026, -1.3868, 26.2357, -8.8267, 10.4860],
            [-5.7429, 0.0577, 10.8216, -11.2275, 1.5074, -10.7244],
        ]
    ),
    np.array(
        [
            [-0.1581, -0.0793],
            [-0.9237, -0.5718],
            [0.7984, 0.6627],
            [0.1145, 0.1496],
            [-0.6743, -0.2376],
            [0.0196, -0.7598],
        ]
    ),
    np.array([[-0.2480, -0.1713, -0.0880, 0.1534, 0.5016, -0.0730], [2.8810, -0.3658, 1.3007, 0.3945, 1.2244, 2.5690]]),
    np.array([[0.0554, 0.1334], [-0.3195, 0.0333]]),
)
W, Z = slice(0, 3), slice(0, 3)  # disturbances and errors; the other inputs and outputs belong to the controller
U, Y = slice(3, 5), slice(3, 5)


def riccati_solutions(gamma):
    """(x, y, f, h): the two solutions, for indefinite weights with cross terms, and their gains."""
    r, s = D[Z].T @ D[Z] - np.diag([gamma**2] * 3 + [0] * 2), C[Z].T @ D[Z]
    x = solve_continuous_are(A, B, C[Z].T @ C[Z], r, s=s)
    rt, st = D[:, W] @ D[:, W].T - np.diag([gamma**2] * 3 + [0] * 2), B[:, W] @ D[:, W].T
    y = solve_continuous_are(A.T, C.T, B[:, W] @ B[:, W].T, rt, s=st)
    return x, y, -np.linalg.solve(r, B.T @ x + s.T), -np.linalg.solve(rt, C @ y + st.T).T


def units():
    """Transformations of w, u, z and y that make D₁₂ = [0; I] and D₂₁ = [0, I]."""
    q, r = np.linalg.qr(D[Z, U], mode="complete")
    p, t = np.linalg.qr(D[Y, W].T, mode="complete")
    return np.roll(p, -2, axis=1), np.linalg.inv(r[:2]), np.roll(q, -2, axis=1), np.linalg.inv(t[:2].T)


def controller(gamma):
    x, y, f, h = riccati_solutions(gamma)
    v, ri, u, ti = units()
    d = u.T @ D[Z, W] @ v
    f = np.vstack([v.T @ f[W], np.linalg.solve(ri, f[U])])
    h = np.hstack([h[:, Z] @ u, np.linalg.solve(ti.T, h[:, Y].T).T])
    inputs, outputs = np.hstack([B[:, W] @ v, B[:, U] @ ri]), np.vstack([u.T @ C[Z], ti @ C[Y]])
    z = np.linalg.inv(np.eye(6) - y @ x / gamma**2)
    dk = -(d[1:, :1] * d[0, 0]) @ d[:1, 1:] / (gamma**2 - d[0, 0] ** 2) - d[1:, 1:]
    c2 = -(outputs[Y] + f[1:3])
    bk = -z @ h[:, Y] + z @ (inputs[:, U] + h[:, 1:3]) @ dk
    ck = f[U] + dk @ c2
    ak = A + inputs @ f + bk @ c2
    bk, ck, dk = bk @ ti, ri @ ck, ri @ dk @ ti
    m = np.linalg.inv(np.eye(2) + D[Y, U] @ dk)
    return ak - bk @ m @ D[Y, U] @ ck, bk @ m, ck - dk @ m @ D[Y, U] @ ck, dk @ m


def closed_loop(a, b, c, d):
    m, n = np.linalg.inv(np.eye(2) - d @ D[Y, U]), np.linalg.inv(np.eye(2) - D[Y, U] @ d)
    loop = np.block([[A + B[:, U] @ m @ d @ C[Y], B[:, U] @ m @ c], [b @ n @ C[Y], a + b @ D[Y, U] @ m @ c]])
    inputs = np.vstack([B[:, W] + B[:, U] @ d @ n @ D[Y, W], b @ n @ D[Y, W]])
    outputs = np.hstack([C[Z] + D[Z, U] @ m @ d @ C[Y], D[Z, U] @ m @ c])
    return loop, inputs, outputs, D[Z, W] + D[Z, U] @ m @ d @ D[Y, W]


def test_published_controller():
    ours = controller(15.0)
    np.testing.assert_allclose(ours[3], PUBLISHED[3], atol=6e-5)
    for s in (0.0, 1.0, 1j, 5.0, 20j):
        values = [c @ np.linalg.solve(s * np.eye(6) - a, b) for a, b, c, _ in (ours, PUBLISHED)]
        np.testing.assert_allclose(*values, atol=3e-4)
    loop = closed_loop(*ours)
    assert np.linalg.eigvals(loop[0]).real.max() < 0
    assert hinf_norm(*loop)[0] < 15


def admissible(gamma):
    x, y, *_ = riccati_solutions(gamma)
    return (
        min(np.linalg.eigvalsh(x)[0], np.linalg.eigvalsh(y)[0]) > 0 and abs(np.linalg.eigvals(x @ y)).max() < gamma**2
    )


def test_gamma_near_the_optimum():
    """The optimum is 10.1843; below it the loop is not admissible, and from 5 downwards there is no stabilising solution."""
    assert admissible(10.185)
    assert not admissible(10.183)
    for gamma in (5.0, 3.0):
        with pytest.raises(SpectrumError, match="an H∞ or bounded-real problem one for a larger γ"):
            riccati_solutions(gamma)
