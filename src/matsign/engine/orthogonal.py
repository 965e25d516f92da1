"""msign by a fixed number of odd polynomial steps, x ← a x + b x (xᴴx) + c x (xᴴx)², with as few flops as the shape allows.

Square matrices take the steps as they stand, three products each. For tall ones (the Gram form) the polynomials act on R = xᴴx,
which is small, and their product Q meets x only now and then: x ← x Q. By itself that loses what R squares away, and rounding
gives R negative eigenvalues that grow a² a step; after two steps Q is applied and R formed anew.

The spectral norm that the first step wants is nearly free: R² is formed anyway, and no eigenvalue of it lies further above
their mean than √(k - 1) standard deviations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matsign.backends import Backend
from matsign.engine.linear import adjoint, column, largest, nonzero, norm, plus_identity, trace
from matsign.engine.schedules import Step

Array = Any

# Rows over columns from which small products make up for the large ones saved (measured in float32 on two cores).
_TALL = 1.75
# Steps until rounding in R is let go.
_RESTART = 2


def orthogonal(be: Backend, m: Array, steps: Sequence[Step], *, bounded: bool) -> Array:
    """The steps on m over a bound of its norm, for m with no more columns than rows and with a square that does not overflow.

    The bound is Frobenius' or, `bounded`, the one above, which is between 1 and 1.6 times the norm on most spectra.
    """
    gram = adjoint(m) @ m
    # In units of 4ʰ, for its own squares.
    h = (be.exponent(largest(be, gram)) + 1) // 2
    gram = be.ldexp(gram, column(-2 * h))
    size = _bound(be, gram) if bounded else be.xp.sqrt(be.real(trace(be, gram)))
    one_over = 1 / nonzero(be, size)
    x, gram = m * column(be.ldexp(one_over, -h)), gram * column(one_over**2)
    if m.shape[-2] >= _TALL * m.shape[-1]:
        return _in_gram_form(be, x, gram, steps)
    for k, (a, b, c) in enumerate(steps):
        gram = gram if k == 0 else adjoint(x) @ x
        x = be.addmm(a, x, 1.0, x, _even(be, gram, b, c))
    return x


def _in_gram_form(be: Backend, x: Array, gram: Array, steps: Sequence[Step]) -> Array:
    for start in range(0, len(steps), _RESTART):
        if start:
            gram = adjoint(x) @ x
        part, q = steps[start : start + _RESTART], None
        for k, (a, b, c) in enumerate(part):
            even = _even(be, gram, b, c)
            factor = plus_identity(be, a, even)
            q = factor if q is None else be.addmm(a, q, 1.0, q, even)
            if k + 1 < len(part):
                gram = factor @ gram @ factor
        x = x if q is None else x @ q
    return x


def _even(be: Backend, gram: Array, b: float, c: float) -> Array:
    """b R + c R²."""
    return be.addmm(b, gram, c, gram, gram) if c else b * gram


def _bound(be: Backend, gram: Array) -> Array:
    """σmax of x from above, from the trace of R² and of R⁴."""
    xp, k = be.xp, gram.shape[-1]
    mean, second = norm(be, gram) ** 2 / k, norm(be, gram @ gram) ** 2 / k
    spread = xp.sqrt((k - 1) * xp.maximum(second - mean**2, xp.zeros_like(mean)))
    return (mean + spread) ** 0.25 * (1 + 8 * be.eps(gram))
