"""The nearest rotation: planar and collinear points, mirror images, ties, and derivatives where the rotation is unique."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import scipy.spatial.transform as st

import matsign
from conftest import JAX
from matrices import gaussian, mirrored, unitary
from matsign import certify, condition, frechet, nearest_rotation
from matsign.functions.rotations.rotation_closed_form import nearest_in_closed_form

QUARTER = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])


def rotation(rng, n):
    q = unitary(rng, n)
    q[:, 0] *= np.linalg.det(q)
    return q


def is_rotation(r, tol=1e-14):
    n = r.shape[-1]
    return np.abs(r.mT @ r - np.eye(n)).max() < tol and np.abs(np.linalg.det(r) - 1).max() < tol


def largest_trace(m):
    """The maximum of tr(RᵀM), from the singular values."""
    u, s, vh = np.linalg.svd(m)
    return s[..., :-1].sum(-1) + np.sign(np.linalg.det(u @ vh)) * s[..., -1]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_is_a_rotation_with_the_largest_trace(n, everywhere, rng):
    m = gaussian(rng, 20, n, n)
    r = everywhere(nearest_rotation, m)
    assert is_rotation(r)
    np.testing.assert_allclose(np.einsum("bij,bij->b", r, m), largest_trace(m), rtol=1e-13, atol=1e-13)


def test_planar_points_have_one_rotation(on, rng):
    """Points in a plane make a matrix of rank 2, of which the SVD alone does not give the sign of the last column."""
    r = np.stack([rotation(rng, 3) for _ in range(20)])
    points = gaussian(rng, 20, 8, 3) * [1, 1, 0]
    found = on(nearest_rotation, r @ points.mT @ points)
    np.testing.assert_allclose(found, r, atol=1e-13)


def test_collinear_points_turn_by_the_smallest_angle(on, rng):
    for _ in range(10):
        a, b = (x / np.linalg.norm(x) for x in gaussian(rng, 2, 3))
        found = on(nearest_rotation, 5 * np.outer(b, a))
        np.testing.assert_allclose(found @ a, b, atol=1e-14)
        angle = np.linalg.norm(st.Rotation.from_matrix(found).as_rotvec())
        np.testing.assert_allclose(angle, np.arccos(a @ b), atol=1e-7)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_low_ranks_are_completed_by_the_rotation_nearest_to_the_identity(n, rng):
    for rank in range(n - 1):
        left, right = unitary(rng, n), unitary(rng, n)
        m = left[:, :rank] * np.arange(1, rank + 1) @ right[:rank]
        r = nearest_rotation(m)
        assert is_rotation(r)
        np.testing.assert_allclose(np.vdot(r, m), rank * (rank + 1) / 2, rtol=1e-13)
        # Any other one turns the null spaces by a rotation, and is farther from I.
        for _ in range(20):
            q = np.eye(n)
            q[rank:, rank:] = rotation(rng, n - rank)
            other = r @ right.T @ q @ right
            assert np.trace(other) <= np.trace(r) + 1e-12


def test_opposite_directions_have_a_fixed_choice(on):
    """All half turns about an axis across the line are equally good, and equally near to I."""
    for k, expected in enumerate(([-1.0, 1, -1], [1, -1, -1], [1, -1, -1])):
        e = np.eye(3)[k]
        for size in (1.0, 1e-9, 3e200):
            r = on(nearest_rotation, -size * np.outer(e, e))
            assert is_rotation(r)
            np.testing.assert_allclose(r @ e, -e, atol=1e-14)
        np.testing.assert_allclose(r, np.diag(expected) if k < 2 else np.diag([1, -1, -1]), atol=1e-14)


def test_of_zero_and_of_numbers(on):
    np.testing.assert_array_equal(on(nearest_rotation, np.zeros((2, 4, 4))), [np.eye(4)] * 2)
    np.testing.assert_array_equal(on(nearest_rotation, np.array([[-3.0]])), [[1.0]])


def test_a_mirror_image_of_a_symmetric_body_has_one_of_several(on):
    value, certificate = certify(nearest_rotation)(np.diag([1.0, 1.0, -1.0]))
    assert is_rotation(value)
    assert np.trace(value @ np.diag([1.0, 1.0, -1.0])) == pytest.approx(1)
    assert certificate.separation == 0
    assert certificate.forward_error > 0.5
    assert condition(nearest_rotation)(np.diag([1.0, 1.0, -1.0])) == np.inf
    assert np.isnan(frechet(nearest_rotation)(np.diag([1.0, 1.0, -1.0]), np.arange(9.0).reshape(3, 3))).any()


def test_separation_is_the_sum_of_the_smallest_singular_values(rng):
    for scale in (1.0, 1e-200, 1e200):
        m = scale * np.stack([mirrored(rng, 3, [3, 2, 1.5]), -mirrored(rng, 3, [3, 2, 1.5])])
        _, certificate = certify(nearest_rotation)(m)
        np.testing.assert_allclose(certificate.separation / scale, [0.5, 3.5])
        np.testing.assert_allclose(condition(nearest_rotation)(m[0]), 2 * 15.25**0.5 / 3**0.5 / 0.5, rtol=0.02)


def test_a_certificate_sees_a_rotation_that_is_not_nearest(rng):
    """A stationary one, with the wrong signs, and a reflection."""
    from matsign import backends

    m = np.diag([3.0, 2.0, 1.0])[None]
    for wrong in (np.diag([-1.0, -1.0, 1.0]), np.diag([1.0, 1.0, -1.0])):
        residual = nearest_rotation.spec.residual(backends.load("numpy"), (wrong[None],), m)
        assert residual.backward > 0.1
        assert np.linalg.norm(residual.correction[0]) > 1


@pytest.mark.parametrize("library", ["torch", JAX])
def test_gradients_at_repeated_singular_values(library, rng):
    """At M = 2I and at a mirrored one, where the derivative of an SVD is NaN."""
    for m in (2 * np.eye(3), np.diag([2.0, 2.0, -1.0]), 2 * np.eye(4), np.diag([1.0, 1.0, 0.0])):
        w = gaussian(rng, *m.shape)
        if library == "torch":
            torch = pytest.importorskip("torch")
            x = torch.from_numpy(m).requires_grad_()
            (nearest_rotation(x) * torch.from_numpy(w)).sum().backward()
            gradient = x.grad.numpy()
        else:
            jax = pytest.importorskip("jax")
            gradient = np.asarray(jax.grad(lambda x, w=w: (nearest_rotation(x) * w).sum())(m))
        e, h = gaussian(rng, *m.shape), 1e-5
        difference = (nearest_rotation(m + h * e) - nearest_rotation(m - h * e)) / (2 * h)
        np.testing.assert_allclose((gradient * e).sum(), (difference * w).sum(), atol=1e-8)


def test_where_it_is_not_unique_the_gradient_of_that_member_alone_is_nan():
    torch = pytest.importorskip("torch")
    x = torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, 0, 0])), torch.eye(3)]).double().requires_grad_()
    nearest_rotation(x)[..., 0, 1].sum().backward()
    assert torch.isnan(x.grad).any((-1, -2)).tolist() == [False, True, False]


def test_rtol_decides_what_is_a_line(rng):
    m = np.outer([0.0, 1, 0], [1.0, 0, 0]) + 1e-8 * gaussian(rng, 3, 3)
    np.testing.assert_allclose(nearest_rotation(m, rtol=1e-6), QUARTER, atol=1e-7)
    assert np.linalg.norm(nearest_rotation(m) - QUARTER) > 1e-3


def test_single_precision_is_right_to_its_last_digits(rng):
    m = gaussian(rng, 50, 3, 3, dtype="float32")
    np.testing.assert_allclose(nearest_rotation(m), nearest_rotation(m.astype(float)), atol=2e-7)


def test_complex_matrices_are_refused(on):
    for f in (nearest_rotation, certify(nearest_rotation)):
        with pytest.raises(
            TypeError, match=r"^nearest_rotation: M has dtype complex128; .*msign is the nearest unitary"
        ):
            f(on.array(np.eye(2) + 0j))
    with pytest.raises(ValueError, match=r"^nearest_rotation: M has shape \(2, 3\), expected"):
        nearest_rotation(np.ones((2, 3)))


def test_where_the_determinant_is_positive_it_is_msign(rng):
    m = -mirrored(rng, 3, [3, 2, 1])
    np.testing.assert_allclose(nearest_rotation(m), matsign.msign(m), atol=1e-14)


def test_certificate_near_a_mirror_image_in_every_direction():
    """Near a reflection rounding decides the rotation: the estimate covers its error whatever the angles of the matrix are."""
    for angle in np.linspace(0, np.pi, 60):
        mirror = np.array([[np.cos(angle), np.sin(angle)], [np.sin(angle), -np.cos(angle)]])
        m = mirror + 1e-9 * np.array([[np.cos(3 * angle), -np.sin(3 * angle)], [np.sin(3 * angle), np.cos(3 * angle)]])
        c, s = (sum(map(Fraction, x.tolist())) for x in (np.diag(m), np.array([m[1, 0], -m[0, 1]])))
        length = np.hypot(float(c), float(s))
        expected = np.array([[float(c), -float(s)], [float(s), float(c)]]) / length
        r, certificate = matsign.certify(nearest_rotation)(m)
        assert certificate.forward_error > 0.2 * np.linalg.norm(r - expected)


def exact_rotation(m):
    """The nearest rotation in 40 digits, and σ₂ + d σ₃ by which rounding is amplified."""
    with mpmath.workdps(40):
        u, values, vh = mpmath.svd_r(mpmath.matrix(m.tolist()))
        d = mpmath.sign(mpmath.det(u * vh))
        r = u * mpmath.diag([1, 1, d]) * vh
        return np.array(r.tolist(), dtype=float), float(values[1] + d * values[2])


def test_the_closed_formula_has_all_digits_where_it_gives_an_answer(rng):
    """Matrices of either determinant, near rotations, of rank 2, and with close singular values."""
    r = np.stack([rotation(rng, 3) for _ in range(40)])
    left, right = r[:20], r[20:]
    families = [gaussian(rng, 20, 3, 3), left + 1e-9 * gaussian(rng, 20, 3, 3)]
    families += [
        left * values @ right for values in ([1.0, 0.5, 0.0], [1.0, 1.0, -0.9], [1.0, 0.3, 0.3], [1.0, 0.9, -0.1])
    ]
    for m in families:
        m = m / np.abs(m).max((1, 2), keepdims=True)
        found, right_ones = nearest_in_closed_form(m)
        assert right_ones.mean() > 0.9
        for k in np.flatnonzero(right_ones):
            exact, gap = exact_rotation(m[k])
            assert np.linalg.norm(found[k] - exact) * gap < 1e-15 * np.linalg.norm(m[k])


def test_the_closed_formula_leaves_what_is_hardly_unique_to_singular_vectors(rng):
    r = np.stack([rotation(rng, 3) for _ in range(40)])
    hard = [
        r[:20] * values @ r[20:] for values in ([1.0, 1e-9, 0.0], [1.0, 0.5, -0.5], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    ]
    m = np.concatenate([*hard, -r])
    assert not nearest_in_closed_form(m)[1].any()
    assert is_rotation(nearest_rotation(m))
