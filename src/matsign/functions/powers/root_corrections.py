"""Correction steps of roots: the equation a dX + dX b = g, for the residual and for rounding errors that the residual may hide.

a and b have their spectra in the right half plane, or zero as a semisimple eigenvalue: then the part of dX between the two null
spaces is left out, because these eigenvalues are exactly zero. No other eigenvalue is shifted, so that a nearly singular
equation gives large steps.

Rounding errors of a residual may by chance cancel the error of the answer. So g is also a few random changes of the data by
rounding; it is unlikely that all of them miss the direction of a nearly singular equation.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.tolerances import LAPACK_SIZE
from matsign.direct import schur_functions
from matsign.iterations.block_structures import Triangular
from matsign.iterations.newton import newton
from matsign.iterations.smith import two_sided_sylvester
from matsign.linalg.null_space import split_null_space
from matsign.linalg.stacks import broadcast_scalar, eye, probe_numbers, random_probe

# The number of random changes for small matrices, and for large ones, where a single change has many directions.
_PROBES_SMALL, _PROBES_LARGE = 3, 1


class RegularRoot(NamedTuple):
    """A root with any zero eigenvalues shifted to the size of the others; the projector on them, the inverse off them."""

    matrix: Array
    projector: Array
    inverse: Array
    singular: Array


def regular_root(backend: Backend, x: Array, rtol: float) -> RegularRoot:
    """Eigenvalues up to n eps ‖x‖ are zero; the others are above √rtol ‖x‖, and the threshold lies between.

    With a smaller `rtol` fewer eigenvalues count as zero, and with 0 only exact zeros.
    """
    small = min(rtol, x.shape[-1] * backend.eps(x)) ** 0.75
    inverse = backend.inv(x)
    regular = backend.norm(x) * backend.norm(inverse) * small < 1

    def split_root(x: Array, inverse: Array) -> RegularRoot:
        zero = split_null_space(backend, x, small)
        root = broadcast_scalar(backend.xp.astype(zero.shift, x.dtype))
        rest = eye(backend, x) - zero.projector
        z = rest @ (backend.inv(zero.shifted) - zero.projector / root) @ rest
        coupling = z @ zero.across
        projector, z = zero.projector - coupling, z + z @ coupling
        # Rounding of x moves its zero eigenvalues by that times the norm of their projector.
        perturbation = x.shape[-1] * backend.eps(x) * backend.norm(x) * backend.norm(projector) * backend.norm(z)
        deflated = RegularRoot(x - x @ projector + root * projector, projector, z, perturbation == perturbation)
        kept = RegularRoot(
            x, 0 * x, backend.xp.where(backend.xp.isfinite(inverse), inverse, 0 * inverse), perturbation < 0
        )
        return backend.masked_select((perturbation < 0.1) & ~zero.defective, deflated, kept)

    return backend.masked_cond(
        regular, lambda x, y: RegularRoot(x, 0 * x, y, backend.norm(x) < 0), split_root, x, inverse
    )


def probes(backend: Backend, x: Array, size: Array) -> Array:
    """Random matrices (B, k, n, m) of the norm that rounding of sums of n terms gives to a matrix of norm `size`."""
    n, m = x.shape[-2:]
    k = _PROBES_SMALL if max(n, m) <= LAPACK_SIZE else _PROBES_LARGE
    length = math.sqrt(float((probe_numbers(k * n, m) ** 2).sum()) / k)
    noise = random_probe(backend, k * n, m, x).reshape((1, k, n, m)) * (math.sqrt(max(n, m)) * backend.eps(x) / length)
    return noise * size[:, None, None, None]


def correct(backend: Backend, a: RegularRoot, b: RegularRoot, rights: Array) -> Array:
    """y (B, k, n, m) with a y + y b = g for each right-hand side g, without its part between the null spaces of a and b."""

    def off_null_spaces(rights: Array, *blocks: Array) -> tuple[Array, Array]:
        pa, pb, za, zb = (y[:, None] for y in blocks)
        inner = rights - pa @ rights
        return inner - inner @ pb, za @ rights @ pb + pa @ rights @ zb

    inner, across = backend.masked_cond(
        a.singular | b.singular,
        off_null_spaces,
        lambda rights, *_: (rights, 0 * rights),
        *(rights, a.projector, b.projector, a.inverse, b.inverse),
    )
    return _solutions(backend, a.matrix, b.matrix, inner) + across


def _solutions(backend: Backend, a: Array, b: Array, rights: Array) -> Array:
    smith_sum = two_sided_sylvester(backend, a, b, rights, 20)
    return backend.masked_cond(
        smith_sum.converged,
        lambda a, b, rights, x: x,
        lambda a, b, rights, x: _by_schur_or_newton(backend, a, b, rights),
        *(a, b, rights, smith_sum.x),
    )


def _by_schur_or_newton(backend: Backend, a: Array, b: Array, rights: Array) -> Array:
    k, n, m = rights.shape[1:]
    # The spectrum of a complex root may touch the imaginary axis.
    if (max(n, m) <= LAPACK_SIZE or backend.is_complex(a)) and backend.on_cpu(a) and not backend.is_traced(a):
        return backend.host_callback(schur_functions.right_sides, rights, a, b, rights)
    wide = backend.xp.permute_dims(rights, (0, 2, 1, 3)).reshape((len(rights), n, k * m))
    y = newton(backend, Triangular(-a, wide, b)).value.c / 2
    return backend.xp.permute_dims(y.reshape((len(rights), n, k, m)), (0, 2, 1, 3))
