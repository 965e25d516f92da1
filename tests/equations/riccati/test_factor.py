"""riccati_factor: few columns for large models, the same solution as the dense equation, and its failures."""

import numpy as np
import pytest

import matsign
from matrices import adjoint, gaussian
from matsign.equations.riccati import factor_certificates, factor_methods

EPS = np.finfo(float).eps


def heat(n, shift=0.0):
    """Heat conduction in a rod with two heaters and two sensors; shift > 9.87 makes it unstable."""
    a = (n + 1.0) ** 2 * (np.eye(n, k=1) + np.eye(n, k=-1) - 2 * np.eye(n)) + shift * np.eye(n)
    b, c = np.zeros((n, 2)), np.zeros((2, n))
    quarter = n // 4
    for j in range(2):
        b[2 * j * quarter : (2 * j + 1) * quarter, j] = 1
        c[j, (2 * j + 1) * quarter : (2 * j + 2) * quarter] = 1 / n
    return a, b, c


def convection(n):
    a, b, c = heat(n)
    return a - 25 * (n + 1) * (np.eye(n, k=1) - np.eye(n, k=-1)), b, c


def beam(n):
    """Lightly damped modes, in coordinates that mix them."""
    w = np.arange(1, n // 2 + 1) ** 1.5
    zero = np.zeros((n // 2, n // 2))
    a = np.block([[zero, np.diag(w)], [-np.diag(w), -0.01 * np.diag(w)]])
    rng = np.random.default_rng(5)
    q = np.linalg.qr(gaussian(rng, n, n))[0]
    return q @ a @ q.T, q @ np.vstack([zero[:, :2], gaussian(rng, n // 2, 2)]), gaussian(rng, 2, n) @ q.T


UNITS = 2.0 ** np.random.default_rng(2).integers(-20, 20, 96)
IN_OTHER_UNITS = UNITS[:, None] / UNITS, UNITS[:, None], 1 / UNITS
MODELS = {
    "heat": heat(96),
    "unstable": heat(96, 150.0),
    "convection": convection(96),
    "beam": beam(64),
    "units": tuple(x * y for x, y in zip(heat(96, 150.0), IN_OTHER_UNITS, strict=True)),
    "integrators": (
        np.kron(np.eye(32), np.eye(2, k=1)),
        np.kron(np.eye(32), [[0.0], [1]]),
        np.kron(np.eye(32), [[1.0, 0]]),
    ),
    "complex": tuple(x * np.exp(0.3j * k) if k else x + 2j * np.eye(96) for k, x in enumerate(heat(96))),
}


def distance(x, y):
    return np.linalg.norm(x - y) / np.linalg.norm(y)


@pytest.mark.parametrize("name", MODELS)
def test_large_models_by_factors(name, monkeypatch):
    a, b, c = MODELS[name]
    x = matsign.solve_continuous_are(a, b, adjoint(c) @ c, np.eye(b.shape[1]))
    monkeypatch.setattr(factor_methods, "_by_solution", None)  # the dense solution is not needed
    z = matsign.riccati_factor(a, b, c)
    full = name in ("beam", "integrators")
    assert z.shape[1] < (65 if full else 80)
    gain = (adjoint(b) @ z) @ adjoint(z)
    assert np.linalg.eigvals(a - b @ gain).real.max() < 0
    units = UNITS if name == "units" else np.ones(len(a))
    assert distance(units[:, None] * (z @ adjoint(z)) * units, units[:, None] * x * units) < 1e-11
    if name == "units":
        return  # the columns are orthogonal in the units that balance a
    gram = adjoint(z) @ z
    lengths = np.sqrt(np.diag(gram).real)
    assert (np.abs(gram - np.diag(np.diag(gram))) < 1e-12 * np.outer(lengths[:1], lengths)).all()
    assert (np.diff(lengths) <= 1e-12 * lengths[0]).all()
    assert lengths[-1] < (1.001 if full else 1e-12) * lengths[0]


def test_short_columns_have_digits():
    """Relative to the first column they are right to rounding: a diagonal model without inputs has an exact Gramian."""
    n, k = 64, np.arange(64)
    poles = -(2.0 ** -(k // 4))
    c = 2.0 ** -k[None]
    z = matsign.riccati_factor(np.diag(poles), np.zeros((n, 1)), c)
    exact = -c.T @ c / (poles[:, None] + poles)
    size = np.sqrt(np.diag(exact))
    assert (np.abs(z @ z.T - exact) < 1e-12 * np.outer(size, size))[:40, :40].all()


@pytest.mark.parametrize(
    ("a", "b", "c", "text"),
    [
        (
            np.diag([1.0, -1]),
            [[0.0], [1]],
            [[1.0, 1]],
            r"\(a, b\) is not stabilisable: no input moves the eigenvalue 1 ",
        ),
        (
            np.diag([0.0, 1]),
            [[1.0], [1]],
            [[0.0, 0]],
            r"\(a, c\) is not detectable: no output depends on .* eigenvalue -?0 ",
        ),
        (
            np.diag([2.0, -1]),
            np.zeros((2, 0)),
            [[1.0, 1]],
            r"\(a, b\) is not stabilisable: no input moves the eigenvalue 2 ",
        ),
    ],
    ids=["unstabilisable", "undetectable", "no inputs"],
)
def test_conditions_are_named(a, b, c, text):
    for scale in (1.0, 2.0**300):  # of time: the eigenvalue in the message scales with it
        expected = text if scale == 1 else text.partition("eigenvalue ")[0]
        with pytest.raises(matsign.SpectrumError, match=expected):
            matsign.riccati_factor(scale * a, np.asarray(b), scale * np.asarray(c))


def test_conditions_are_named_for_large_models():
    a, b, c = heat(64)
    a[0, :], b[0] = 0, 0
    a[0, 0] = 3.0
    with pytest.raises(matsign.SpectrumError, match=r"\(a, b\) is not stabilisable: no input moves the eigenvalue 3 "):
        matsign.riccati_factor(a, b, c)


def test_without_inputs_or_outputs():
    a, b, c = (x[:64, :64] for x in heat(64))
    np.testing.assert_allclose(
        matsign.riccati_factor(a, b[:, :0], c), matsign.lyapunov_factor(a.T, c.T), atol=1e-13 * np.linalg.norm(c)
    )
    assert not matsign.riccati_factor(a, b, c[:0]).any()
    # Without outputs unstable modes are moved to their mirror images (Bernoulli): here one, so x has rank 1.
    unstable = a + 20 * np.eye(64)
    z = matsign.riccati_factor(unstable, b, c[:0])
    poles, moved = (np.sort(np.linalg.eigvals(x).real) for x in (unstable, unstable - b @ (b.T @ z) @ z.T))
    assert z.shape == (64, 1)
    np.testing.assert_allclose(moved, np.sort([*poles[:-1], -poles[-1]]), rtol=1e-9)


def test_members_of_a_large_batch():
    """Padded with zeros to the largest number of columns; a failed member spoils no other one."""
    (a, b, c), zero = heat(64), np.zeros((64, 64))
    broken = np.where(np.eye(64) == 1, np.nan, 0.0)
    z = matsign.riccati_factor(np.stack([a, broken, zero - np.eye(64), a]), b, c, errors="nan")
    assert np.isnan(z[1]).all()
    assert not np.isnan(z[[0, 2, 3]]).any()
    np.testing.assert_array_equal(z[0], z[3])
    np.testing.assert_array_equal(z[0], matsign.riccati_factor(a, b, c))
    assert (z[2] != 0).any(0).sum() == 2  # of [c] with -I: two columns


def test_dense_solution_takes_over(monkeypatch):
    """Where doubling on factors does not converge."""
    a, b, c = MODELS["unstable"]
    z = matsign.riccati_factor(a, b, c)
    doubled = factor_methods.double_factors
    monkeypatch.setattr(factor_methods, "double_factors", lambda *x: doubled(*x)._replace(converged=False))
    y = matsign.riccati_factor(a, b, c)
    assert distance(y @ y.T, z @ z.T) < 1e-11


@pytest.mark.parametrize("name", ["units", "unstable", "integrators"])
def test_certificates_by_factors(name, monkeypatch):
    """They agree with those of the dense solution, up to the accuracy of estimates."""
    certified = matsign.certify(matsign.riccati_factor)
    found = certified(*MODELS[name])[1]
    monkeypatch.setattr(factor_certificates, "LARGE", 1000)
    expected = certified(*MODELS[name])[1]
    assert found.backward_error < 2 * expected.backward_error + 1e-15
    assert expected.forward_error / 10 < found.forward_error < 10 * expected.forward_error
    assert name == "units" or 0.8 < found.separation / expected.separation < 1.6
    assert not found.boundary


def test_rates_over_sixteen_decades():
    """Rounding may put the slowest mode on the axis, and the closed loop of z beyond it: the dense solution knows more."""
    rng = np.random.default_rng(7)
    rates, b, c = 10.0 ** np.linspace(-8, 8, 64), gaussian(rng, 64, 2), gaussian(rng, 2, 64)
    for a in (-np.diag(rates), np.triu(gaussian(rng, 64, 64), 1) - np.diag(rates**0.375)):
        z, certificate = matsign.certify(matsign.riccati_factor)(a, b, c)
        x = matsign.solve_continuous_are(a, b, c.T @ c, np.eye(2))
        error = np.linalg.norm(z @ z.T - x) / np.linalg.norm(x)
        assert error < 1e-12
        assert error / 4 < certificate.forward_error < 1e-9


def test_certificate_of_a_wrong_factor():
    a, b, c = heat(64)
    z, certificate = matsign.certify(matsign.riccati_factor)(a, b, c)
    assert certificate.converged
    assert not certificate.boundary
    assert certificate.backward_error < 1e-11
    assert certificate.forward_error < 1e-11
    backend, spec = matsign.backends.load("numpy"), matsign.riccati_factor.spec
    wrong = spec.residual(backend, (1.0001 * z[None],), a[None], b[None], c[None])
    assert 0.8e-4 < np.linalg.norm(wrong.correction[0]) / np.linalg.norm(z) < 1.3e-4
    not_stabilising = spec.residual(backend, (0 * z[None, :, :1],), a[None] + 30 * np.eye(64), b[None], c[None])
    assert not_stabilising.boundary.all()
    assert not not_stabilising.separation.any()
    assert np.isinf(not_stabilising.correction[0]).all()


def test_extreme_sizes():
    """Powers of two commute with the factor: z scales as the root of the cost over time."""
    rng = np.random.default_rng(1)
    a, b, c = gaussian(rng, 3, 3), gaussian(rng, 3, 1), gaussian(rng, 2, 3)
    z = matsign.riccati_factor(a, b, c)
    for of_a, of_b, of_c, of_z in (
        (200, 0, 200, 100),
        (0, 300, -300, -300),
        (-300, 0, -300, -150),
        (400, 500, -100, -300),
    ):
        scaled = matsign.riccati_factor(a * 2.0**of_a, b * 2.0**of_b, c * 2.0**of_c)
        np.testing.assert_allclose(scaled, z * 2.0**of_z, rtol=1e-12)
