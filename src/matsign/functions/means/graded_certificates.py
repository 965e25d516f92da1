"""Errors of the mean G of a pair that is graded apart, from other means in decimal arithmetic.

The mean B #_{1-t} A has other factors, and that of rounded matrices shows the effect of rounding.
"""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.functions.means.decimal_mean import affordable, decimal_means_of
from matsign.functions.means.graded_pairs import graded_apart, in_units_of_definite
from matsign.functions.powers.coupled_root import normalise_pair
from matsign.linalg.stacks import hermitian, random_probe, safe_divisor


def with_graded_residual(
    backend: Backend, usual: Residual, g: Array, a: Array, b: Array, t: float, rtol: float | None
) -> Residual:
    """The residual `usual`, with that of means in decimal arithmetic for pairs that are graded apart."""
    if not affordable(backend, a):
        return usual
    x, y, _, _ = normalise_pair(backend, a, b)
    apart = graded_apart(backend, x, y, in_units_of_definite(backend, x, y, rtol).factors, rtol)
    if not backend.any_true(apart):
        return usual
    exact = decimal_means_of(backend, apart, b, a, 1 - t)
    rounded = decimal_means_of(backend, apart, _perturb(backend, a, False), _perturb(backend, b, True), t)
    gap = g - exact
    # Both are rounded to the dtype.
    steps = backend.xp.stack([gap, rounded - exact + backend.eps(g) * exact], axis=1)
    steps = backend.xp.concat([steps, 0 * usual.correction[0][:, 2:]], axis=1)
    known = apart & backend.xp.isfinite(backend.norm(rounded)) & backend.xp.isfinite(backend.norm(exact))
    backward = backend.norm(gap) / safe_divisor(backend, backend.norm(exact))
    return usual._replace(
        backward=backend.xp.where(known, backward, usual.backward),
        correction=(backend.xp.where(known[:, None, None, None], steps, usual.correction[0]),),
    )


def _perturb(backend: Backend, a: Array, flip: bool) -> Array:
    """A with fixed random errors in units in which its diagonal is 1."""
    root = backend.xp.sqrt(abs(backend.xp.linalg.diagonal(a).real))
    probe = hermitian(random_probe(backend, a.shape[-1], a.shape[-1], a))
    probe = backend.xp.flip(probe, axis=(-2, -1)) if flip else probe
    return a + backend.eps(a) * probe * (root[:, :, None] * root[:, None, :])
