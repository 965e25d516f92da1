"""Derivatives of the functions of matrices: against differences, against each other, and where textbook rules break."""

from functools import partial

import mpmath
import numpy as np
import pytest

import matsign
from conftest import JAX
from gradients import assert_differentiates_twice
from matrices import gaussian, graded, mirrored, similar
from matsign import condition, frechet


def definite(rng, n, dtype="float64"):
    x = gaussian(rng, n, n, dtype=dtype)
    return x @ x.conj().T / n + np.eye(n)


def near(rng, n, dtype="float64"):
    """Not Hermitian, with a root."""
    return definite(rng, n, dtype) + 0.2 * gaussian(rng, n, n, dtype=dtype)


CASES = {
    "mcsgn": (matsign.mcsgn, lambda rng, d: (gaussian(rng, 4, 4, dtype=d),)),
    "matrix_abs": (matsign.matrix_abs, lambda rng, d: (gaussian(rng, 4, 4, dtype=d),)),
    "right projector": (matsign.spectral_projector, lambda rng, d: (gaussian(rng, 4, 4, dtype=d),)),
    "left projector": (
        lambda m, **k: matsign.spectral_projector(m, half_plane="left", **k),
        lambda rng, d: (gaussian(rng, 4, 4, dtype=d),),
    ),
    "density matrix": (
        partial(matsign.spectral_projector, at=0.3, half_plane="left"),
        lambda rng, d: (gaussian(rng, 3, 3, dtype=d), definite(rng, 3, d)),
    ),
    "occupation": (partial(matsign.fermi_occupation, kT=0.6, mu=0.8), lambda rng, d: (definite(rng, 3, d),)),
    "occupation of a number of electrons": (
        partial(matsign.fermi_occupation, kT=0.6, electrons=1.3),
        lambda rng, d: (definite(rng, 3, d),),
    ),
    "msign, square": (matsign.msign, lambda rng, d: (gaussian(rng, 4, 4, dtype=d),)),
    "msign, tall": (matsign.msign, lambda rng, d: (gaussian(rng, 5, 3, dtype=d),)),
    "msign, wide": (matsign.msign, lambda rng, d: (gaussian(rng, 2, 5, dtype=d),)),
    "msign, a column": (matsign.msign, lambda rng, d: (gaussian(rng, 3, 1, dtype=d),)),
    "nearest_rotation, 3 x 3": (matsign.nearest_rotation, lambda rng, d: (-definite(rng, 3),)),
    "nearest_rotation": (matsign.nearest_rotation, lambda rng, d: (mirrored(rng, 4, [4, 3, 2, 1]),)),
    "procrustes": (matsign.procrustes, lambda rng, d: (gaussian(rng, 5, 3, dtype=d), gaussian(rng, 5, 3, dtype=d))),
    "kabsch": (
        matsign.kabsch,
        lambda rng, d: (*gaussian(rng, 2, 6, 3), np.arange(1.0, 7)),
    ),
    "polar": (matsign.polar, lambda rng, d: (gaussian(rng, 5, 3, dtype=d),)),
    "sqrtm": (matsign.sqrtm, lambda rng, d: (near(rng, 4, d),)),
    "invsqrtm": (matsign.invsqrtm, lambda rng, d: (near(rng, 4, d),)),
    "sqrtm_pair": (matsign.sqrtm_pair, lambda rng, d: (near(rng, 3, d),)),
    "rootm": (partial(matsign.rootm, p=3), lambda rng, d: (near(rng, 3, d),)),
    "invrootm, definite": (partial(matsign.invrootm, p=4), lambda rng, d: (definite(rng, 3, d),)),
    "invroot_product": (
        partial(matsign.invroot_product, p=3, s=2),
        lambda rng, d: (gaussian(rng, 2, 3, dtype=d), definite(rng, 3, d)),
    ),
    "fractional_matrix_power": (partial(matsign.fractional_matrix_power, t=1.4), lambda rng, d: (near(rng, 3, d),)),
    "integer power": (partial(matsign.fractional_matrix_power, t=-2), lambda rng, d: (near(rng, 3, d),)),
    "logm": (matsign.logm, lambda rng, d: (near(rng, 3, d),)),
    "logm, definite": (matsign.logm, lambda rng, d: (definite(rng, 3, d),)),
    "coupled_root": (matsign.coupled_root, lambda rng, d: (near(rng, 3, d), near(rng, 3, d))),
    "geometric_mean": (matsign.geometric_mean, lambda rng, d: (definite(rng, 3, d), definite(rng, 3, d))),
    "geometric_mean, general": (matsign.geometric_mean, lambda rng, d: (near(rng, 3, d), near(rng, 3, d))),
    "weighted mean": (
        partial(matsign.geometric_mean, t=0.3),
        lambda rng, d: (definite(rng, 3, d), definite(rng, 3, d)),
    ),
    "weighted mean, general": (
        partial(matsign.geometric_mean, t=0.7),
        lambda rng, d: (near(rng, 3, d), near(rng, 3, d)),
    ),
    "1 x 1": (matsign.sqrtm, lambda rng, d: (definite(rng, 1, d),)),
}


def takes_complex(f):
    spec = getattr(f, "spec", None)
    return spec is None or not spec.parameters.real_only


every_case = pytest.mark.parametrize(
    ("case", "dtype"), [(c, d) for c in CASES for d in ("float64", "complex128")[: 1 + takes_complex(CASES[c][0])]]
)


def as_tuple(value):
    return tuple(value) if isinstance(value, tuple) else (value,)


def moved(f, arrays, directions):
    """Of eighth order: central differences extrapolated three times."""
    rows = []
    for k in range(4):
        h = 2e-2 / 2**k
        ahead, back = (
            as_tuple(f(*(x + s * h * dx for x, dx in zip(arrays, directions, strict=True)))) for s in (1, -1)
        )
        row = [[(a - b) / (2 * h) for a, b in zip(ahead, back, strict=True)]]
        for j, before in enumerate(rows[-1] if rows else []):
            row.append(
                [(4 ** (j + 1) * new - old) / (4 ** (j + 1) - 1) for new, old in zip(row[j], before, strict=True)]
            )
        rows.append(row)
    return rows[-1][-1]


def frechet_of(f, arrays, directions):
    """`frechet` of a function with options bound, too."""
    if isinstance(f, partial) and "at" in f.keywords:
        options = {**f.keywords}
        at = options.pop("at")
        return as_tuple(frechet(f.func)(*arrays, at, *directions, None, **options))
    if isinstance(f, partial):
        return as_tuple(frechet(f.func)(*arrays, *directions, **f.keywords))
    if hasattr(f, "spec"):
        return as_tuple(frechet(f)(*arrays, *directions))
    return as_tuple(frechet(matsign.spectral_projector)(*arrays, *directions, half_plane="left"))


@every_case
def test_tangent_equals_differences(case, dtype, rng):
    f, make = CASES[case]
    arrays = make(rng, dtype)
    directions = tuple(0.1 * gaussian(rng, *x.shape, dtype=dtype) for x in arrays)
    if case in ("geometric_mean", "weighted mean") or case.startswith("occupation"):
        directions = tuple(x + x.conj().T for x in directions)
    if case == "density matrix":
        directions = (directions[0], directions[1] + directions[1].conj().T)
    for tangent, difference in zip(frechet_of(f, arrays, directions), moved(f, arrays, directions), strict=True):
        assert np.linalg.norm(tangent - difference) < 1e-9 * max(1, np.linalg.norm(difference))


@every_case
def test_cotangent_is_the_adjoint_of_the_tangent(case, dtype, rng):
    torch = pytest.importorskip("torch")
    f, make = CASES[case]
    arrays = make(rng, dtype)
    directions = tuple(gaussian(rng, *x.shape, dtype=dtype) for x in arrays)
    tangents = frechet_of(f, arrays, directions)
    cotangents = tuple(gaussian(rng, *x.shape, dtype=x.dtype) for x in tangents)
    inputs = [torch.from_numpy(x).requires_grad_() for x in arrays]
    gradients = torch.autograd.grad(as_tuple(f(*inputs)), inputs, [torch.from_numpy(x) for x in cotangents])
    forth = sum(np.vdot(b, t).real for b, t in zip(cotangents, tangents, strict=True))
    back = sum(np.vdot(g.numpy(), d).real for g, d in zip(gradients, directions, strict=True))
    size = sum(np.linalg.norm(b) * np.linalg.norm(t) for b, t in zip(cotangents, tangents, strict=True))
    assert abs(forth - back) < 1e-13 * size


@pytest.mark.slow
@every_case
def test_twice_in_torch(case, dtype, rng):
    torch = pytest.importorskip("torch")
    f, make = CASES[case]
    assert_differentiates_twice(f, [torch.from_numpy(x).requires_grad_() for x in make(rng, dtype)])


@pytest.mark.compiles
@pytest.mark.parametrize("case", ["mcsgn", "msign, tall", "sqrtm", "geometric_mean, general"])
def test_twice_both_ways_in_jax(case, rng):
    jax = pytest.importorskip("jax")
    from jax.test_util import check_grads

    f, make = CASES[case]
    arrays = tuple(jax.numpy.asarray(x) for x in make(rng, "float64"))
    check_grads(jax.jit(f), arrays, order=2, modes=["fwd", "rev"], rtol=1e-4)


@pytest.mark.compiles
@pytest.mark.parametrize("case", ["mcsgn", "msign, wide", "polar", "sqrtm_pair", "coupled_root"])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_torch_and_jax_agree(case, dtype, rng):
    """Up to their conventions: JAX's gradient of a real function is the conjugate of torch's."""
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    f, make = CASES[case]
    arrays = make(rng, dtype)
    weights = [gaussian(rng, *x.shape) for x in as_tuple(f(*arrays))]

    def loss(library, *xs):
        return sum((w * abs(y - 1) ** 2).sum() for w, y in zip(map(library, weights), as_tuple(f(*xs)), strict=True))

    inputs = [torch.from_numpy(x).requires_grad_() for x in arrays]
    loss(torch.from_numpy, *inputs).backward()
    places = tuple(range(len(arrays)))
    found = jax.jit(jax.grad(lambda *xs: loss(jax.numpy.asarray, *xs), argnums=places))(*map(jax.numpy.asarray, arrays))
    for x, y in zip(inputs, found, strict=True):
        np.testing.assert_allclose(np.conj(y), x.grad.numpy(), atol=1e-12 * np.abs(y).max())


def test_gradient_to_ten_digits_against_forty(rng):
    """The derivative of mcsgn along E is the corner of mcsgn([[M, E], [0, M]]), here in 40 digits."""
    m, e = gaussian(rng, 4, 4), gaussian(rng, 4, 4)
    with mpmath.workdps(40):
        zero = np.zeros((4, 4))
        s = mpmath.matrix(np.block([[m, e], [zero, m]]).tolist())
        for _ in range(60):
            s = (s + s**-1) / 2
        exact = np.array(s[:4, 4:].tolist(), float)
    assert np.linalg.norm(frechet(matsign.mcsgn)(m, e) - exact) < 1e-12 * np.linalg.norm(exact)


# Where textbook derivatives divide by the gap between singular values or eigenvalues.


def gradient(f, m, library, rng):
    """Of a random linear functional of f."""
    weight = np.random.default_rng(1).standard_normal(np.asarray(f(m)).shape)
    if library == "torch":
        torch = pytest.importorskip("torch")
        x = torch.from_numpy(m).requires_grad_()
        (f(x) * torch.from_numpy(weight)).sum().backward()
        return x.grad.numpy(), weight
    jax = pytest.importorskip("jax")
    return np.asarray(jax.grad(lambda x: (f(x) * weight).sum())(jax.numpy.asarray(m))), weight


@pytest.mark.parametrize("library", ["torch", JAX])
def test_repeated_singular_values(library, rng):
    """For M = 2I the derivative is the skew part over 2, where the SVD's gradient is NaN."""
    found, weight = gradient(matsign.msign, 2 * np.eye(4), library, rng)
    np.testing.assert_allclose(found, (weight - weight.T) / 4, atol=1e-14)


@pytest.mark.parametrize("library", ["torch", JAX])
def test_repeated_eigenvalues(library, rng):
    found, weight = gradient(matsign.sqrtm, 4 * np.eye(4), library, rng)
    np.testing.assert_allclose(found, weight / 4, atol=1e-14)
    m = similar(rng, np.diag([2.0, 2, -3, -3]), 3)
    found, weight = gradient(matsign.mcsgn, m, library, rng)
    e = gaussian(rng, 4, 4)
    (difference,) = moved(matsign.mcsgn, (m,), (0.1 * e,))
    assert abs((found * 0.1 * e).sum() - (weight * difference).sum()) < 1e-8


def curve(rng, n, m, rank):
    """A matrix of low rank, and a direction that keeps the rank to first order, with an exact curve through it."""
    left, right = gaussian(rng, n, rank), gaussian(rng, m, rank)
    dl, dr = gaussian(rng, n, rank), gaussian(rng, m, rank)
    return lambda t: (left + t * dl) @ (right + t * dr).T, dl @ right.T + left @ dr.T


@pytest.mark.parametrize(("n", "m", "rank"), [(5, 5, 2), (6, 4, 1), (3, 6, 2), (4, 4, 0)])
def test_msign_along_directions_that_keep_the_rank(n, m, rank, rng):
    at, direction = curve(rng, n, m, rank)
    found = frechet(matsign.msign)(at(0), direction)
    h = 1e-4
    ahead, back, far, farther = (matsign.msign(at(t * h), rtol=1e-10) for t in (1, -1, 2, -2))
    np.testing.assert_allclose(found, (8 * (ahead - back) - (far - farther)) / (12 * h), atol=1e-9)
    across = gaussian(rng, n, m)
    u = matsign.msign(at(0))
    out = (np.eye(n) - u @ u.T) @ across @ (np.eye(m) - u.T @ u)
    assert np.linalg.norm(frechet(matsign.msign)(at(0), out)) < 1e-10


@pytest.mark.parametrize(
    "f", [matsign.mcsgn, matsign.matrix_abs, matsign.spectral_projector, matsign.sqrtm, matsign.invsqrtm]
)
def test_singular_along_directions_that_keep_the_rank(f, rng):
    v, dv = np.eye(5) + 0.3 * gaussian(rng, 5, 5), 0.3 * gaussian(rng, 5, 5)
    values = np.array([3.0, 1, 2, 0, 0]) if f in (matsign.sqrtm, matsign.invsqrtm) else np.array([3.0, 1, -2, 0, 0])

    def at(t):
        w = v + t * dv
        return w @ np.diag(values) @ np.linalg.inv(w)

    direction = dv @ np.linalg.inv(v) @ at(0) - at(0) @ dv @ np.linalg.inv(v)
    found = frechet(f)(at(0), direction)
    h = 1e-4
    ahead, back, far, farther = (f(at(t * h), rtol=1e-9) for t in (1, -1, 2, -2))
    np.testing.assert_allclose(found, (8 * (ahead - back) - (far - farther)) / (12 * h), atol=1e-8)


def test_near_the_axis_the_derivative_grows_as_the_inverse_distance(rng):
    rotation = np.array([[0.0, 1], [-1, 0]])
    sizes = []
    for distance in (1e-2, 1e-4, 1e-6):
        m = np.block([[distance * np.eye(2) + rotation, np.zeros((2, 2))], [np.zeros((2, 2)), -np.eye(2)]])
        m[:2, :2] += 0
        other = np.block(
            [[-distance * np.eye(2) + rotation, np.zeros((2, 2))], [np.zeros((2, 2)), distance * np.eye(2) + rotation]]
        )
        sizes.append(condition(matsign.mcsgn)(other))
    np.testing.assert_allclose(np.array(sizes[1:]) / sizes[:-1], 100, rtol=0.05)


def test_nearly_singular_root(rng):
    """Its condition number is 1/(2 √λ) times the size of the matrix over that of its root."""
    for small in (1e-4, 1e-8, 1e-12):
        a = np.diag([1.0, small])
        assert abs(condition(matsign.sqrtm)(a) * 2 * np.sqrt(small) - 1) < 0.05
        step = frechet(matsign.sqrtm)(a, np.diag([0, small]))
        np.testing.assert_allclose(step, np.diag([0, np.sqrt(small) / 2]), rtol=1e-10, atol=0)


def test_condition_number_of_graded_and_nonnormal_matrices(rng):
    for m in (similar(rng, np.diag([1.0, 2, -3]), 1e3), similar(rng, np.diag(graded(3, 1e3)), 10)):
        f = matsign.mcsgn if np.linalg.eigvals(m).real.min() < 0 else matsign.sqrtm
        columns = [frechet(f)(m, e.reshape(3, 3)).ravel() for e in np.eye(9)]
        exact = np.linalg.norm(np.array(columns), 2) * np.linalg.norm(m) / np.linalg.norm(f(m))
        assert 0.8 < condition(f)(m) / exact < 1 + 1e-10


def test_condition_everywhere_and_in_batches(on, rng):
    a = np.stack([near(rng, 3), near(rng, 3), np.full((3, 3), np.nan), near(rng, 3)])
    found = on(condition(matsign.sqrtm), a, errors="nan")
    assert found.shape == (4,)
    assert np.isnan(found[2])
    for k in (0, 1, 3):
        np.testing.assert_allclose(found[k], condition(matsign.sqrtm)(a[k]), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e200, 1e-200])
@pytest.mark.parametrize("f", [matsign.msign, matsign.mcsgn, matsign.matrix_abs, matsign.sqrtm, matsign.polar])
def test_condition_number_of_what_overflows_when_squared(f, scale, on, rng):
    m = near(rng, 3)
    np.testing.assert_allclose(on(condition(f), scale * m), condition(f)(m), rtol=1e-3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("f", [matsign.msign, matsign.mcsgn, matsign.matrix_abs, matsign.sqrtm, matsign.psd_project])
def test_condition_number_where_the_value_or_the_derivative_is_zero(f, on):
    for m in (np.zeros((2, 2)), np.diag([1.0, 0.0])):
        assert not np.isnan(on(condition(f), m))
    assert on(condition(matsign.psd_project), -np.eye(2)) == 0


def test_condition_number_of_the_matrix_that_everybody_tries():
    """The start of the power iteration was this very matrix, along which the polar factor does not move."""
    m = np.random.default_rng(0).standard_normal((4, 4))
    parts = [frechet(matsign.polar)(m, e.reshape(4, 4)) for e in np.eye(16)]
    sizes = [np.linalg.norm(x) for x in matsign.polar(m)]
    columns = [np.concatenate([p.ravel() / s for p, s in zip(pair, sizes, strict=True)]) for pair in parts]
    assert condition(matsign.polar)(m) > 0.7 * np.linalg.norm(np.array(columns), 2) * np.linalg.norm(m)


def test_condition_number_that_overflows_is_infinite(on):
    """[[1, x], [0, -1]] in units that make the derivative of its sign about x³, too large for single precision."""
    m = np.array([[1.0, 1e15], [0.0, -1.0]], np.float32)
    found = on(condition(matsign.matrix_abs), np.stack([m, np.eye(2, dtype=np.float32)]))
    assert found[0] > 1e14
    assert found[1] < 10


@pytest.mark.parametrize("f", [matsign.coupled_root, matsign.geometric_mean])
def test_condition_number_of_two_arrays_that_are_alike(f, on, rng):
    """Equal relative changes of both do not move a quotient, opposite ones no product: a start along them shows nothing."""
    for a, b in ((np.eye(1), np.eye(1)), (np.array([[2.0]]), np.array([[0.5]])), (near(rng, 3), None)):
        value = on(condition(f), a, a if b is None else b)
        assert value > 0.5


@pytest.mark.parametrize(("one", "two"), [(0, 0), (1e293, 1e-300), (1e-300, 1e293), (1e200, 1e-200)])
def test_condition_number_of_arrays_of_very_different_sizes(one, two, on):
    a, b = np.array([[(one or 1.0) * 5.6]]), np.array([[(two or 1.0) * 3.0]])
    np.testing.assert_allclose(on(condition(matsign.coupled_root), a, b), 1.0, rtol=1e-3)


def test_the_derivative_of_a_coupled_root_keeps_scales(on, rng):
    a, b, da, db = (near(rng, 3) for _ in range(4))
    plain, large = (
        on(frechet(matsign.coupled_root), *x)
        for x in ((a, b, da, db), (4.0**240 * a, b / 4.0**240, 4.0**240 * da, db / 4.0**240))
    )
    for x, y, scale in zip(plain, large, (4.0**240, 4.0**-240), strict=True):
        np.testing.assert_allclose(y / scale, x, rtol=1e-12, atol=1e-12)


def test_frechet_broadcasts_and_checks(on, rng):
    a, e = near(rng, 3), gaussian(rng, 5, 3, 3)
    found = on(frechet(matsign.sqrtm), a, e)
    assert found.shape == (5, 3, 3)
    np.testing.assert_allclose(found[2], frechet(matsign.sqrtm)(a, e[2]), atol=1e-14)
    u, h = frechet(matsign.polar)(a, e[0])
    assert u.shape == h.shape == (3, 3)
    np.testing.assert_allclose(
        frechet(matsign.coupled_root)(a, a, e[0], None)[0],
        frechet(matsign.coupled_root)(a, a, e[0], np.zeros((3, 3)))[0],
    )
    with pytest.raises(TypeError, match="as many directions"):
        frechet(matsign.sqrtm)(a)
    with pytest.raises(ValueError, match="dA has shape"):
        frechet(matsign.sqrtm)(a, e[..., :2])
    for transform in (frechet, condition):
        with pytest.raises(TypeError, match="function of matsign"):
            transform(np.linalg.inv)
    assert not hasattr(frechet(matsign.sqrtm), "spec")


def test_empty_matrices_and_batches(rng):
    torch = pytest.importorskip("torch")
    for shape in ((0, 0), (0, 3, 3), (2, 0, 0)):
        x = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        matsign.mcsgn(x).sum().backward()
        assert x.grad.shape == shape
        assert frechet(matsign.mcsgn)(np.zeros(shape), np.zeros(shape)).shape == shape
        assert np.shape(condition(matsign.mcsgn)(np.zeros(shape))) == shape[:-2]


@pytest.mark.parametrize("f", [matsign.msign, matsign.mcsgn, matsign.matrix_abs, lambda m: matsign.polar(m).h])
@pytest.mark.parametrize(("dtype", "size"), [("float32", 2.0**99), ("float32", 2.0**-99), ("float64", 2.0**560)])
def test_gradients_of_very_large_and_very_small_matrices(f, dtype, size, rng):
    """Scaled by a power of two they are those of the matrix in between, scaled."""
    torch = pytest.importorskip("torch")
    m = torch.from_numpy(gaussian(rng, 5, 5, dtype=dtype))
    weights = torch.from_numpy(gaussian(rng, 5, 5, dtype=dtype))
    results = []
    for s in (1.0, size):
        x = (s * m).requires_grad_()
        (gradient,) = torch.autograd.grad((f(x) * weights).sum(), x)
        results.append(gradient * s if f in (matsign.msign, matsign.mcsgn) else gradient)
    torch.testing.assert_close(results[1], results[0], rtol=1e-3 if dtype == "float32" else 1e-9, atol=0.0)


@pytest.mark.parametrize("f", [matsign.sqrtm, matsign.invsqrtm, matsign.sqrtm_pair])
def test_condition_of_a_singular_root_is_infinite(f, on):
    """√t has no derivative at zero, and a change of rank makes the inverse jump. Of 0 there are no relative changes."""
    stack = np.stack([np.diag([1.0, 0]), np.array([[1.0, 5], [0, 0]]), np.eye(2), np.full((2, 2), np.nan)])
    found = on(condition(f), stack, errors="nan")
    assert np.isinf(found[:2]).all()
    assert 0.4 < found[2] < 0.8
    assert np.isnan(found[3])
    assert on(condition(f), np.zeros((2, 2))) == 0


def test_derivative_of_singular_roots_by_hundreds(rng):
    """Along directions that keep the rank: a similarity that moves."""
    for _ in range(200):
        n = int(rng.integers(2, 8))
        values = np.where(np.arange(n) < rng.integers(0, n), rng.uniform(0.5, 3, n), 0)
        v, dv = np.eye(n) + 0.3 * gaussian(rng, n, n), 0.3 * gaussian(rng, n, n)
        inverse = np.linalg.inv(v)
        if np.linalg.cond(v) > 30:
            continue
        turn = dv @ inverse
        a, x = (v @ np.diag(d) @ inverse for d in (values, np.sqrt(values)))
        z = v @ np.diag(np.where(values > 0, 1 / np.sqrt(np.where(values > 0, values, 1)), 0)) @ inverse
        found = frechet(matsign.sqrtm_pair)(a, turn @ a - a @ turn)
        for step, y in zip(found, (x, z), strict=True):
            expected = turn @ y - y @ turn
            assert np.linalg.norm(step - expected) < 1e-11 * max(1, np.linalg.norm(expected))
