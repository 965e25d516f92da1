"""karcher_mean and bures_mean: beside 80 digits and closed formulas, hard collections, weights, failures, derivatives."""

import functools

import mpmath
import numpy as np
import pytest

import matsign
import truth
from fuzz import references
from matrices import definite
from matsign import SpectrumError, bures_mean, certify, frechet, geometric_mean, karcher_mean

MEANS = [karcher_mean, bures_mean]
REFERENCE = {f: truth.remembered(getattr(references, f.__name__)) for f in MEANS}
each_mean = pytest.mark.parametrize("mean", MEANS, ids=lambda f: f.__name__)
WEIGHTS = np.array([1.0, 2.0, 0.5])


def collection(rng, n=3, k=3, dtype="float64", batch=()):
    members = [definite(rng, n, dtype=dtype) for _ in range(int(np.prod(batch)) * k)]
    return np.stack(members).reshape(*batch, k, n, n)


def of_condition(rng, n, k, exponent):
    """Matrices with random eigenvectors and eigenvalues between 10^-exponent and 1."""
    q = np.linalg.qr(rng.standard_normal((k, n, n)))[0]
    x = q * 10.0 ** rng.uniform(-exponent, 0, (k, 1, n)) @ q.mT
    return (x + x.mT) / 2


def distance(x, y):
    return np.linalg.norm(x - y) / np.linalg.norm(y)


@each_mean
@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
def test_against_many_digits(mean, dtype, everywhere, rng):
    if everywhere.name == "jax" and dtype != "float64":
        pytest.skip("compiling takes long")
    a, w = collection(rng, dtype=dtype), WEIGHTS.astype(dtype if "complex" not in dtype else "float64")
    found, certificate = everywhere(certify(mean), a, w)
    with mpmath.workdps(40):
        true = float(truth.error(found, REFERENCE[mean](a, w)))
    eps = np.finfo(dtype).eps
    assert found.dtype == dtype
    assert true < 20 * eps
    assert certificate.backward_error < 20 * eps
    assert true / 10 < certificate.forward_error < 100 * eps


@each_mean
@pytest.mark.parametrize("exponent", [4, 8, 12])
def test_ill_conditioned(mean, exponent, rng):
    a = of_condition(rng, 8, 5, exponent)
    _, certificate = certify(mean)(a)
    assert certificate.backward_error < 2e-14
    assert certificate.forward_error < 1e-15 * 10 ** (0.8 * exponent)
    assert certificate.iterations < 60


@each_mean
def test_one_the_same_and_commuting(mean, rng):
    a = collection(rng)
    assert distance(mean(a[:1]), a[0]) < 1e-14
    assert distance(mean(np.stack([a[0]] * 3)), a[0]) < 1e-14
    d = 10.0 ** rng.uniform(-3, 3, (4, 5))
    q = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    commuting = q * d[:, None, :] @ q.T
    expected = np.exp(np.log(d).mean(0)) if mean is karcher_mean else np.sqrt(d).mean(0) ** 2
    assert distance(mean((commuting + commuting.mT) / 2), q * expected @ q.T) < 1e-12


def test_two_have_a_closed_formula(rng):
    """The mean of two is on the geodesic; that of Bures is by the optimal map T, (1-t) I + t T on both sides of A."""
    a = collection(rng, 4, 2)
    assert distance(karcher_mean(a, [0.7, 0.3]), geometric_mean(*a, t=0.3)) < 1e-14
    between = 0.7 * np.eye(4) + 0.3 * matsign.coupled_root(a[1], a[0])[0]
    assert distance(bures_mean(a, [0.7, 0.3]), between @ a[0] @ between) < 1e-14


def test_karcher_is_congruent_in_any_units(rng):
    a, c = collection(rng, 3, 4), rng.standard_normal((3, 3))
    m = karcher_mean(a)
    x = c @ a @ c.T
    assert distance(karcher_mean((x + x.mT) / 2), c @ m @ c.T) < 1e-13
    d = np.diag([1e-8, 1, 1e9])
    np.testing.assert_allclose(karcher_mean(d @ a @ d), d @ m @ d, rtol=1e-13)
    own = np.array([1e100, 1e-100, 1e50, 1e-50])[:, None, None]
    np.testing.assert_allclose(karcher_mean(own * a), m, rtol=1e-13)


@each_mean
@pytest.mark.parametrize("scale", [1e-306, 1e-150, 1e150, 1e305])
def test_scales(mean, scale, rng):
    a = collection(rng)
    np.testing.assert_allclose(mean(scale * a) / scale, mean(a), rtol=1e-13)


@each_mean
def test_weights(mean, rng):
    a = collection(rng)
    plain = mean(a, WEIGHTS)
    for factor in (1e300, 1e-300, 3.0):
        np.testing.assert_allclose(mean(a, factor * WEIGHTS), plain, rtol=1e-13)
    np.testing.assert_allclose(mean(np.concatenate([a, a[1:2]]), [1, 1, 0.5, 1]), plain, rtol=1e-13)
    filled = np.concatenate([a, np.eye(3)[None]])
    np.testing.assert_allclose(mean(filled, [*WEIGHTS, 0]), plain, rtol=1e-13)
    several = mean(a, np.stack([WEIGHTS, [1, 0, 0]]))
    np.testing.assert_array_equal(several[0], plain)
    assert distance(several[1], a[0]) < 1e-14
    for bad, least in (([1, 1, -0.5], "-0.5"), ([0, 0, 0], "0"), (np.array([1, 1, 2j]), r"0\+2j")):
        with pytest.raises(SpectrumError, match=f"^{mean.__name__}: the weights must be .*smallest is {least}$"):
            mean(a, bad)


@each_mean
def test_a_collection_has_the_same_bits_in_every_batch(mean, on, rng):
    for n, k in ((1, 3), (2, 20), (3, 3)):
        a = collection(rng, n, k, batch=(2, 2))
        bad = a.copy()
        bad[0, 1, 1, 0, 0] = np.nan
        found = on(mean, bad, errors="nan")
        assert np.isnan(found[0, 1]).all()
        for place in ((0, 0), (1, 1)):
            np.testing.assert_array_equal(found[place], on(mean, a[place]))


def test_singular_matrices(rng):
    low = np.diag([4.0, 1.0, 0.0])
    assert distance(bures_mean(np.stack([np.eye(3), low])), np.diag([2.25, 1.0, 0.25])) < 1e-14
    with pytest.raises(SpectrumError, match=r"^karcher_mean: batch members 1: a matrix .*diagonal 1: 2 and 0\. Add"):
        karcher_mean(np.stack([collection(rng), np.stack([np.eye(3), np.eye(3), low])]))
    with pytest.raises(SpectrumError, match=r"^bures_mean: a matrix .* eigenvalue: 1 and -2\. psd_project"):
        bures_mean(np.stack([np.eye(3), np.diag([1.0, -2.0, 1.0])]))
    # A mean on the range of one matrix, and none where no range holds the others.
    x = rng.standard_normal((5, 3))
    y = x @ rng.standard_normal((3, 1))
    m = bures_mean(np.stack([x @ x.T, y @ y.T]))
    assert np.linalg.matrix_rank(m, rtol=1e-12) == 3
    with pytest.raises(SpectrumError, match=r"^bures_mean: the mean may not be unique: .*: 1 and 2\. Add"):
        bures_mean(np.stack([np.diag([1.0, 0]), np.diag([0, 1.0])]))
    assert not bures_mean(np.zeros((2, 3, 3))).any()
    ones = [(v := rng.standard_normal((5, 1))) @ v.T for _ in range(6)]
    _, certificate = certify(bures_mean)(np.stack([np.eye(5), *ones]))
    assert certificate.backward_error < 1e-14
    assert certificate.measures["clipped"] < 1e-14


@each_mean
def test_bad_collections(mean, rng):
    name = mean.__name__
    for stack, text in (
        ([np.eye(2), np.eye(3)], r"stack holds arrays of different shapes, \(2, 2\) and \(3, 3\); a mean needs"),
        ([], "stack holds no matrices"),
        (np.zeros((2, 0, 3, 3)), "stack holds no matrices"),
        (np.eye(3), r"stack has shape \(3, 3\), expected \(\.\.\., k, n, n\)"),
        (np.stack([np.eye(2), np.triu(np.ones((2, 2)))]), "stack is not Hermitian"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: {text}"):
            mean(stack)
    with pytest.raises(
        ValueError, match=rf"^{name}: weights has shape \(2,\), expected \(\.\.\., k\) with k = 3 from stack"
    ):
        mean(collection(rng), [1.0, 1.0])
    assert mean(np.zeros((2, 0, 0))).shape == (0, 0)
    assert mean(np.zeros((0, 2, 3, 3))).shape == (0, 3, 3)
    frozen = collection(rng)
    frozen.flags.writeable = False
    assert mean(list(frozen)).shape == (3, 3)
    assert distance(mean(np.array([[[2, 1], [1, 2]]])), np.array([[2, 1], [1, 2]])) < 1e-14


@each_mean
def test_where_newton_does_not_converge_the_best_iterate_is_in_the_error(mean, monkeypatch, rng):
    for module in ("damped_newton", "safeguarded_newton"):
        monkeypatch.setattr(f"matsign.iterations.{module}._LIMIT", 1)
    a = of_condition(rng, 4, 3, 6)
    with pytest.raises(SpectrumError, match=r"the iteration stopped at a residual of .*best iterate$") as caught:
        mean(a)
    assert np.isfinite(caught.value.value).all()
    assert np.isnan(mean(a, errors="nan")).all()


@each_mean
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_derivatives(mean, dtype, rng):
    """Beside differences, and by weights too; of second order in torch."""
    torch = pytest.importorskip("torch")
    a, da = collection(rng, dtype=dtype), 0.1 * collection(rng, dtype=dtype)
    dw = np.array([0.1, -0.2, 0.05])
    step, h = frechet(mean)(a, WEIGHTS, da, dw), 1e-3
    near = [mean(a + s * h * da, WEIGHTS + s * h * dw) for s in (1, -1, 2, -2)]
    assert distance(step, (8 * (near[0] - near[1]) - (near[2] - near[3])) / (12 * h)) < 1e-9
    inputs = [torch.from_numpy(x).requires_grad_() for x in (a, WEIGHTS)]
    hermitian = functools.partial(lambda a, w: mean((a + a.mH) / 2, w))
    assert torch.autograd.gradcheck(hermitian, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(hermitian, inputs, atol=1e-5, fast_mode=True)


@pytest.mark.slow
@pytest.mark.compiles
def test_derivatives_in_jax(rng):
    """Both in one program: of second order by weights, and mapped over a batch."""
    jax = pytest.importorskip("jax")
    a = collection(rng, 2, 3, batch=(2,))

    def total(a, w):
        return sum((mean(a, w) ** 2).sum() for mean in MEANS)

    found = jax.jit(jax.vmap(jax.hessian(total, argnums=1), in_axes=(0, None)))(a, WEIGHTS)
    h = 1e-4
    shifts = h * np.eye(3)
    for k in range(3):
        ahead, back = ([matsign_gradient(x, WEIGHTS + s * shifts[k]) for x in a] for s in (1, -1))
        np.testing.assert_allclose(found[:, k], (np.array(ahead) - np.array(back)) / (2 * h), rtol=1e-5, atol=1e-6)


def matsign_gradient(a, w):
    """The gradient by the weights of the sum of squares of both means, by tangents."""
    return [sum(2 * (mean(a, w) * frechet(mean)(a, w, None, dw)).sum() for mean in MEANS) for dw in np.eye(3)]


@each_mean
def test_distances_decrease(mean, rng):
    """The mean has a smaller sum of squared distances than matrices near to it: the definition."""
    a = collection(rng)

    def cost(m):
        if mean is bures_mean:
            return float((WEIGHTS * matsign.bures_distance(a, m, squared=True)).sum())
        values = [np.linalg.eigvals(np.linalg.solve(m, x)).real for x in a]
        return sum(w * (np.log(v) ** 2).sum() for w, v in zip(WEIGHTS, values, strict=True))

    m = mean(a, WEIGHTS)
    for _ in range(5):
        e = rng.standard_normal((3, 3))
        assert cost(m) < cost(m + 1e-4 * (e + e.T))
