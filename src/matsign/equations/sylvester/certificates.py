"""Error estimates for Sylvester equations a x + x b = q, and their separation."""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.public import Residual
from matsign.direct import schur_functions
from matsign.equations.sylvester.methods import auto, scale_equation
from matsign.iterations import separating_line, shared_sums
from matsign.iterations.refinement import (
    backward,
    correction,
    each_in_callers_units,
    rounding,
    solve_weighed,
    terms,
    total,
)
from matsign.linalg.separation import ROUNDINGS, separation
from matsign.linalg.stacks import adjoint, random_probe

_SAMPLES = 3


def sylvester_residual(backend: Backend, value: tuple[Array], a: Array, b: Array, q: Array) -> Residual:
    """Backward error, correction and separation.

    The correction is the solution for the residual q - a x - x b, enlarged by solutions for random right-hand sides of the
    size of the rounding errors, eps times the moduli of the terms in each entry: the residual and the data are rounded, too.
    """
    original, scaled = value[0], scale_equation(backend, a, b, q)
    x, xp = backend.ldexp(original, -scaling.add_exponents(scaled.outer, scaled.scale)), backend.xp
    arrays = scaled.a, scaled.b, scaled.q, x
    (n, m), parts = q.shape[-2:], terms(*arrays)
    entry_rounding = backend.eps(x) * rounding(backend, terms, *arrays)
    if max(n, m) > shared_sums.SMALL:
        # One perturbation suffices: its many random entries average out.
        rights = (total(parts) + entry_rounding * random_probe(backend, n, m, x))[:, None]
    else:
        noise = entry_rounding[:, None] * xp.reshape(random_probe(backend, _SAMPLES * n, m, x), (1, _SAMPLES, n, m))
        rights = xp.concat([total(parts)[:, None], noise], axis=1)
    solved, least = _solutions(backend, scaled.a, scaled.b, rights)
    solved = each_in_callers_units(
        backend,
        lambda gap, a, b: _solutions(backend, a, b, gap[:, None])[0][:, 0],
        lambda x, right, a, b: terms(a, b, right, x),
        *(solved, scaled.outer, rights, scaled.a, scaled.b),
    )
    # The backward error is measured in the caller's units.
    left = backward(backend, *solve_weighed(backend, scaled.outer, total(parts), *parts))
    step = scaling.at_least_rounded(
        backend, backend.ldexp(correction(backend, solved), scaling.add_exponents(scaled.outer, scaled.scale)), original
    )
    return Residual(left, (step,), backend.ldexp(least, scaled.size))


def _member_solutions(backend: Backend, a: Array, b: Array, q: Array) -> tuple[Array, Array]:
    """`_solutions` of one large member: from the powers of a sum if it is reliable, else from Schur forms."""
    if not bool(separating_line.likely_inseparable(backend, a, b)[0]):
        sums = shared_sums.sylvester(backend, a, b)
        if sums.is_reliable(backend, ROUNDINGS * backend.eps(a) * (backend.norm(a) + backend.norm(b))):
            return sums.responses(backend, q, None)
    return backend.host_callback(schur_functions.solutions, (q, backend.ones(q)), a, b, q)


def _solutions(backend: Backend, a: Array, b: Array, q: Array) -> tuple[Array, Array]:
    """(solutions for right-hand sides (B, k, n, m), separation)."""
    if backend.on_cpu(q) and not backend.is_traced(q) and max(q.shape[-2:]) > shared_sums.SMALL:
        parts = [_member_solutions(backend, *(x[k : k + 1] for x in (a, b, q))) for k in range(len(q))]
        return backend.xp.concat([x for x, _ in parts]), backend.xp.concat([least for _, least in parts])
    if backend.on_cpu(q):
        return backend.host_callback(schur_functions.solutions, (q, backend.ones(q)), a, b, q)
    count, k, n, m = q.shape

    def repeat(x: Array) -> Array:
        return backend.xp.reshape(backend.xp.stack([x] * k, axis=1), (count * k, *x.shape[-2:]))

    x = auto(backend, repeat(a), repeat(b), backend.xp.reshape(q, (count * k, n, m))).value[0]
    ah, bh = adjoint(a), adjoint(b)
    estimate = separation(
        backend, lambda y: auto(backend, a, b, y).value[0], lambda y: auto(backend, ah, bh, y).value[0], q[:, 0]
    )
    return backend.xp.reshape(x, q.shape), estimate.value
