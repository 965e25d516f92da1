"""msign by a fixed number of odd polynomial steps, x ← a x + b x (xᴴx) + c x (xᴴx)², with as few flops as the shape allows.

Square matrices take the steps as they stand, three products each. For tall ones (the Gram form) the polynomials act on R = xᴴx,
which is small, and their product Q meets x only now and then: x ← x Q. That loses what R squares away, and rounding gives R
negative eigenvalues that grow a² a step; before they or Q have grown too far for the accuracy that is asked for, Q is applied
and R formed anew.

The spectral norm that the first step wants is nearly free: R² is formed anyway, and no eigenvalue of it lies further above
their mean than √(k - 1) standard deviations.

In half precision, where a device has it, only the arrays are short: sums within a product are in single precision, and so is
every number per matrix. The matrix is brought to size first and rounded then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.backends.constants import power_of_two
from matsign.iterations.minimax import HEADROOM, Step, cached_design, headroom
from matsign.linalg.stacks import adjoint, broadcast_scalar, safe_divisor, scale_to_unit, trace

# Rows over columns from which small products make up for the large ones saved (measured in float32 on two cores).
_TALL = 1.75
# Steps that are never worth a restart between them.
_SHORT = 2
# What of the tolerance may be noise in R, and what an error by the condition of Q.
_SHARE_OF_R, _SHARE_OF_Q = 0.05, 0.01
# The same of all there is, before the last step in half precision.
_SHARE_OF_SHORT = 0.01
# Rows that are summed over in one piece: the rounding errors of a sum grow with its length, where all of its terms are equal
# and a device adds them one by one.
_PIECE = 2048
# The unit of rounding of single precision, in which products of half precision are summed.
_SINGLE = 2.0**-23
# A Frobenius norm in here leaves room for the squares of R² in single precision, up and down.
_ROOM = (2.0**-8, 2.0**14)


Plan = tuple[float, tuple[Step, ...]]


def orthogonal(backend: Backend, m: Array, plans: Sequence[Plan], *, tol: float, bounded: bool) -> tuple[Array, Array]:
    """(x, steps): msign of m to about `tol`, for m with no more columns than rows, and how many steps it took.

    A plan is for a smallest singular value above its first number, in units of the bound on the largest; the plans go from
    short to long, and where there is a choice the smallest singular value is bounded from below, at the price of an inverse
    of R. The bound on the largest is Frobenius' or, `bounded`, the one above, between 1 and 1.6 times it on most spectra.
    In half precision m is as `to_half` leaves it.
    """
    half = is_half(backend, m)
    if not half:
        m, _ = _in_range(backend, m)
    gram = _gram(backend, m)
    square = backend.hermitian_product(gram, gram)
    exact, squared = (backend.astype(x, "float32") for x in (gram, square)) if half else (gram, square)
    size = backend.xp.sqrt(backend.xp.sqrt(_upper(backend, squared)) if bounded else trace(backend, exact).real)
    # A matrix of rank one has all of its norm there, where polynomials are steepest: what is above it would explode.
    size = size * (1 + 2 * headroom(*rounding(backend, m)))
    start = Start(m, gram, exact, squared, size)
    if len(plans) == 1:
        return _by_plan(backend, start, plans[0], tol)
    least = 1 / (safe_divisor(backend, size) * backend.xp.sqrt(_upper(backend, backend.inv(gram))))
    return _by_shortest(backend, least, start, plans, tol)


def to_half(backend: Backend, m: Array, short: str) -> Array:
    """m in half precision, of a size that keeps R and R² in its range: R has eigenvalues of mean 1/√k and at most √k."""
    m, size = _in_range(backend, m)
    return backend.astype(m * broadcast_scalar(min(m.shape[-2:]) ** 0.25 / safe_divisor(backend, size)), short)


def is_half(backend: Backend, m: Array) -> bool:
    return backend.eps(m) > 1e-4


def rounding(backend: Backend, m: Array) -> tuple[float, int]:
    """What steps on m may be off by, as a unit and how many of them a sum gathers, as a power of two.

    In half precision that is four units a step, or what sums in single precision make of their length if that is more.
    """
    long, eps = max(m.shape[-2:]), backend.eps(m)
    if is_half(backend, m):
        # 16 _SINGLE / eps is a power of two.
        return eps / 16, max(256, power_of_two(long // round(eps / (16 * _SINGLE)) + 1))
    piece = _piece(m)
    return eps, power_of_two(long if long <= 2 * piece else piece + long // piece + 1)


def form(short: int, long: int) -> tuple[bool, int]:
    """What the steps on a matrix and their order depend on, beside its shorter side.

    As long as rows or columns of zeros leave this as it is, they change an answer by rounding errors alone.
    """
    return long >= _TALL * short, long if long > 2 * _PIECE else power_of_two(max(long, round(4 * HEADROOM)))


def _piece(m: Array) -> int:
    """Rows of a tall matrix, or columns of a wide one, that are summed over in one piece: there is room for all the sums."""
    return max(_PIECE, min(m.shape[-2:]))


def _gram(backend: Backend, x: Array, shift: float = 0.0) -> Array:
    """xᴴx + shift I, over long columns in pieces."""
    count, n, k = x.shape
    piece = _piece(x)
    if n <= 2 * piece or is_half(backend, x):
        return backend.hermitian_product(adjoint(x), x, shift)
    whole = n // piece
    head = x[:, : whole * piece, :].reshape((count * whole, piece, k))
    sums = backend.hermitian_product(adjoint(head), head).reshape((count, whole, k, k))
    rest = x[:, whole * piece :, :]
    return backend.xp.sum(sums, axis=1) + backend.hermitian_product(adjoint(rest), rest, shift)


def _in_range(backend: Backend, m: Array) -> tuple[Array, Array]:
    """m times a power of two, which changes no bit of what follows, only whether it overflows; and its norm."""

    def brought(m: Array, _: Array) -> tuple[Array, Array]:
        m, _ = scale_to_unit(backend, m)
        return m, backend.norm(m)

    size = backend.norm(m)
    far = ~((size > _ROOM[0]) & (size < _ROOM[1]))
    found: tuple[Array, Array] = backend.masked_cond(far, brought, lambda m, size: (m, size), m, size)
    return found


class Start(NamedTuple):
    """A matrix m, R = mᴴm in its dtype, R and R² in one of at least 32 bits, and the bound on its norm."""

    m: Array
    gram: Array
    exact: Array
    square: Array
    size: Array


def _by_shortest(
    backend: Backend, least: Array, start: Start, plans: Sequence[Plan], tol: float
) -> tuple[Array, Array]:
    plan, *longer = plans
    if not longer:
        return _by_plan(backend, start, plan, tol)
    return backend.masked_cond(
        least > plan[0],
        lambda _, start: _by_plan(backend, start, plan, tol),
        lambda least, start: _by_shortest(backend, least, start, longer, tol),
        *(least, start),
    )


def _by_plan(backend: Backend, start: Start, plan: Plan, tol: float) -> tuple[Array, Array]:
    m, gram, exact, square, size = start
    chain, count = _monic(plan[1]), len(plan[1]) * backend.ones(exact)
    first = _first(backend, exact, square, 1 / safe_divisor(backend, size), chain[0])
    if is_half(backend, m):
        first = backend.astype(first, backend.dtype_name(m))
    if m.shape[-2] >= _TALL * m.shape[-1]:
        segments = (
            _short_segments(chain, backend.eps(m)) if is_half(backend, m) else _segments(chain, tol, backend.eps(m))
        )
        return _in_gram_form(backend, m, gram, first, segments), count
    x = m @ first
    for link in chain[1:]:
        x = x @ _factor(backend, backend.hermitian_product(adjoint(x), x, _shift(link)), link)
    return x, count


class Link(NamedTuple):
    """A step y ← y (a I + b S + c S²) with S = yᴴy, for y = t x; `slope` is that of x at zero."""

    a: float
    b: float
    c: float
    t: float
    slope: float
    monic: bool


Chain = tuple[Link, ...]


@cached_design
def _monic(steps: tuple[Step, ...]) -> Chain:
    """The steps in units in which c is 1, where squares can be completed: then all done to a matrix is products and diagonals.

    With y ← y ρ p(yᴴy/t²) for ρ = t'/t that is t⁵ = c t', from the last step, which ends in t' = 1, to the first. A small c
    would make a and the completed square cancel.
    """
    links: list[Link] = []
    after = 1.0
    for a, b, c in reversed(steps):
        monic = c > 1e-6 and b * b <= 16 * abs(a) * c
        t = (c * after) ** 0.2 if monic else 1.0
        grow = after / t
        links.append(Link(grow * a, grow * b / t**2, 1.0 if monic else grow * c, t, a, monic))
        after = t
    return tuple(links[::-1])


def _first(backend: Backend, gram: Array, square: Array, s: Array, link: Link) -> Array:
    """The factor of the first step, for y = t s m, with R and R² of m known."""
    s = link.t * s
    by = s * s
    even = broadcast_scalar(s * (link.b * by)) * gram + broadcast_scalar(s * (link.c * by * by)) * square
    return backend.add_diagonal(even, link.a * s)


def _shift(link: Link) -> float:
    """What of I a step wants added to R: where c = 1 the square is completed, a I + b R + R² = (R + b/2 I)² + (a - b²/4) I."""
    return 0.5 * link.b if link.monic else 0.0


def _factor(backend: Backend, gram: Array, link: Link) -> Array:
    """a I + b R + c R² from R and its shift."""
    a, b, c, *_ = link
    if link.monic:
        return backend.hermitian_product(gram, gram, a - 0.25 * b * b)
    even = b * gram + c * backend.hermitian_product(gram, gram) if c else b * gram
    return backend.add_diagonal(even, a * backend.ones(gram))


@cached_design
def _segments(chain: Chain, tol: float, eps: float) -> tuple[Chain, ...]:
    """The steps between one forming of R and the next: noise in R grows by a² a step, and with it the condition of Q by a."""
    found: list[Chain] = []
    start, grown = 0, 1.0
    for k, link in enumerate(chain):
        noise, loss = eps * grown**2, eps * grown * link.slope
        if k - start >= _SHORT and (noise > _SHARE_OF_R * tol or loss > _SHARE_OF_Q * tol):
            found.append(chain[start:k])
            start, grown = k, 1.0
        grown *= link.slope
    return (*found, chain[start:])


@cached_design
def _short_segments(chain: Chain, eps: float) -> tuple[Chain, ...]:
    """The same where noise in R puts values so far over the top that the steps after it would let them explode.

    So R is formed anew for every step, but for the last one if the noise is small then.
    """
    joined = len(chain) >= _SHORT and 0.5 * eps * chain[-2].slope ** 2 < _SHARE_OF_SHORT
    last = len(chain) - _SHORT if joined else len(chain)
    return (*(chain[k : k + 1] for k in range(last)), *([chain[last:]] if joined else []))


def _in_gram_form(backend: Backend, x: Array, gram: Array, factor: Array, segments: tuple[Chain, ...]) -> Array:
    """The steps on x with R = xᴴx, of whose first the factor is known."""
    for k, segment in enumerate(segments):
        if k > 0:
            gram = _gram(backend, x, _shift(segment[0]))
            factor = _factor(backend, gram, segment[0])
        q, shift = factor, _shift(segment[0]) if k > 0 else 0.0
        for link in segment[1:]:
            if shift:
                gram = backend.add_diagonal(gram, -shift * backend.ones(gram))
            shift = _shift(link)
            # All of these are polynomials of one R, so that they commute and their products are Hermitian.
            gram = backend.hermitian_product(backend.hermitian_product(factor, gram), factor, shift)
            factor = _factor(backend, gram, link)
            q = backend.hermitian_product(q, factor)
        x = x @ q
    return x


def _upper(backend: Backend, a: Array) -> Array:
    """The largest eigenvalue of a positive semidefinite matrix from above, from the mean of them and of their squares."""
    xp, k = backend.xp, a.shape[-1]
    mean, size = trace(backend, a).real / k, backend.norm(a)
    return mean + xp.sqrt((k - 1) * xp.maximum(size * size / k - mean * mean, xp.zeros_like(mean)))
