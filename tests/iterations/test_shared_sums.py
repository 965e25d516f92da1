"""Certificates of large equations from the powers of a sum: equal to those from Schur forms, and without Schur forms."""

import numpy as np
import pytest

import matsign
from matsign.backends import lapack
from matsign.iterations import shared_sums

N = 72


def _noise(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


STABLE = _noise(N, N) / N**0.5 - 2 * np.eye(N)
INSIDE = 0.7 * _noise(N, N) / N**0.5
B, C = _noise(N, 2), _noise(2, N)
Q, MIXED = B @ B.T, _noise(N, N)
TURNED = np.exp(0.7j)

CASES = {
    "lyapunov": (matsign.solve_continuous_lyapunov, (STABLE, -Q)),
    "lyapunov on the right": (matsign.solve_continuous_lyapunov, (-STABLE, Q)),
    "lyapunov, general q": (matsign.solve_continuous_lyapunov, (STABLE, MIXED)),
    "complex lyapunov": (matsign.solve_continuous_lyapunov, (STABLE + 0.5j * _noise(N, N) / N**0.5, -Q)),
    "stein": (matsign.solve_discrete_lyapunov, (INSIDE, Q)),
    "stein outside": (matsign.solve_discrete_lyapunov, (np.linalg.inv(INSIDE), Q)),
    "complex stein": (matsign.solve_discrete_lyapunov, (TURNED * INSIDE, Q)),
    "sylvester": (matsign.solve_sylvester, (STABLE, STABLE[:50, :50] - 2 * np.eye(50), MIXED[:, :50])),
    "sylvester off the axis": (matsign.solve_sylvester, (STABLE + 9 * np.eye(N), STABLE - 4 * np.eye(N), MIXED)),
    "factor": (matsign.lyapunov_factor, (STABLE, B)),
    "discrete factor": (matsign.discrete_lyapunov_factor, (INSIDE, B)),
    "hankel": (matsign.hankel_singular_values, (STABLE, B, C)),
}


@pytest.mark.parametrize("name", CASES)
def test_as_by_schur_forms(name, monkeypatch):
    f, arrays = CASES[name]
    with monkeypatch.context() as patched:
        patched.setattr(lapack, "schur", None)
        value, quick = matsign.certify(f)(*arrays)
    monkeypatch.setattr(shared_sums, "SMALL", N)
    same, slow = matsign.certify(f)(*arrays)
    np.testing.assert_array_equal(value, same)
    assert slow.forward_error / 3 < quick.forward_error < 3 * slow.forward_error
    assert slow.separation < 1.1 * quick.separation < 15 * slow.separation
    assert quick.backward_error < 2 * slow.backward_error + 1e-15


@pytest.mark.parametrize("name", [name for name in CASES if "factor" not in name and name != "hankel"])
def test_an_error_shows(name):
    """The correction of an answer that is wrong in its ninth digit is that error."""
    f, arrays = CASES[name]
    x = f(*arrays)
    wrong = x + 1e-9 * np.linalg.norm(x) * _noise(*x.shape) / x.size**0.5
    backend = matsign.backends.load("numpy")
    stacks = [np.asarray(a, x.dtype)[None] for a in arrays]
    (step,) = f.spec.residual(backend, (wrong[None],), *stacks).correction
    assert np.linalg.norm(step[0] + wrong - x) < 1e-2 * np.linalg.norm(wrong - x)


def test_what_has_no_sum_goes_to_schur_forms():
    """Eigenvalues in both half planes, by itself and as a member of a batch."""
    mixed = np.diag(np.where(np.arange(N) % 2, 1.0, -1.5)) + 0.1 * STABLE
    batch = np.stack([STABLE, mixed])
    _, both = matsign.certify(matsign.solve_continuous_lyapunov)(batch, Q)
    for k, a in enumerate(batch):
        _, alone = matsign.certify(matsign.solve_continuous_lyapunov)(a, Q)
        assert alone.forward_error < 1e-12
        assert (both.forward_error[k], both.separation[k]) == (alone.forward_error, alone.separation)
