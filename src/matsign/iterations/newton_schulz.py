"""msign by a fixed number of odd polynomial steps, x ← a x + b x (xᴴx) + c x (xᴴx)², with as few flops as the shape allows.

Square matrices take the steps directly, three products each. For tall ones (the Gram form) the polynomials act on the small
R = xᴴx, and their product Q is applied to x once in several steps: x ← x Q. R has the square of the condition number of x, and
rounding gives it negative eigenvalues, which grow by a² a step; before they or Q are too large for the accuracy asked for, Q is
applied and R computed again.

The spectral norm for the first step is nearly free: R² is needed anyway, and the largest of its k eigenvalues is at most
√(k - 1) standard deviations above their mean.

In half precision, where a device has it, only matrices are in half precision: sums within a product are in single precision,
and so is every number per matrix. The matrix is scaled first and rounded after that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.backends.constants import power_of_two
from matsign.iterations.minimax import HEADROOM, Step, cached_design, headroom
from matsign.linalg.conditioning import largest_eigenvalue_bound
from matsign.linalg.stacks import adjoint, broadcast_scalar, safe_divisor, scale_to_unit, trace

# From this ratio of rows to columns on the Gram form is faster (measured in float32 on two cores).
_TALL = 1.75
# The fewest steps between two computations of R.
_MIN_SEGMENT = 2
# Fractions of tol allotted to rounding errors in R, and to those from the condition of Q.
_SHARE_OF_R, _SHARE_OF_Q = 0.05, 0.01
# The largest rounding error in R before the last step in half precision.
_GRAM_ERROR_IN_HALF = 0.01
# Rows that are summed in one piece: the rounding errors of a sum grow with its length if its terms are equal and a device adds
# them one by one.
_PIECE = 2048
# The unit of rounding of single precision, in which products of half precision are summed.
_SINGLE = 2.0**-23
# With a Frobenius norm in this interval the squares of R² neither overflow nor underflow in single precision.
_ROOM = (2.0**-8, 2.0**14)


Plan = tuple[float, tuple[Step, ...]]


def orthogonal(backend: Backend, m: Array, plans: Sequence[Plan], *, tol: float, bounded: bool) -> tuple[Array, Array]:
    """(x, steps): msign of m to about `tol`, for m with no more columns than rows, and the number of steps.

    A plan is for matrices whose smallest singular value is above its first number, in units of the bound on the largest. The
    plans go from few steps to many; with several, the smallest singular value is bounded from below, which costs an inverse
    of R. The bound on the largest is the Frobenius norm or, if `bounded`, that from R², 1 to 1.6 times σmax on most spectra.
    In half precision m comes from `to_half`.
    """
    half = is_half(backend, m)
    if not half:
        m, _ = _in_range(backend, m)
    gram = _gram(backend, m)
    square = backend.hermitian_product(gram, gram)
    exact, squared = (backend.astype(x, "float32") for x in (gram, square)) if half else (gram, square)
    size = backend.xp.sqrt(
        backend.xp.sqrt(largest_eigenvalue_bound(backend, squared)) if bounded else trace(backend, exact).real
    )
    # The singular value of a matrix of rank one equals the bound, above which polynomials diverge: leave room for rounding.
    size = size * (1 + 2 * headroom(*rounding(backend, m)))
    start = Start(m, gram, exact, squared, size)
    if len(plans) == 1:
        return _by_plan(backend, start, plans[0], tol)
    least = 1 / (safe_divisor(backend, size) * backend.xp.sqrt(largest_eigenvalue_bound(backend, backend.inv(gram))))
    return _by_shortest(backend, least, start, plans, tol)


def to_half(backend: Backend, m: Array, half_dtype: str) -> Array:
    """m in half precision, scaled so that R and R² are in its range: the eigenvalues of R have mean 1/√k and are at most √k."""
    m, size = _in_range(backend, m)
    return backend.astype(m * broadcast_scalar(min(m.shape[-2:]) ** 0.25 / safe_divisor(backend, size)), half_dtype)


def is_half(backend: Backend, m: Array) -> bool:
    return backend.eps(m) > 1e-4


def rounding(backend: Backend, m: Array) -> tuple[float, int]:
    """The rounding error of a step on m: its unit, and how many terms a sum accumulates, as a power of two.

    In half precision it is four units a step, or the rounding error of the sums in single precision if that is more.
    """
    long, eps = max(m.shape[-2:]), backend.eps(m)
    if is_half(backend, m):
        # 16 _SINGLE / eps is a power of two.
        return eps / 16, max(256, power_of_two(long // round(eps / (16 * _SINGLE)) + 1))
    piece = _piece(m)
    return eps, power_of_two(long if long <= 2 * piece else piece + long // piece + 1)


def form(short: int, long: int) -> tuple[bool, int]:
    """The properties of the shape, beside the shorter side, that the steps on a matrix depend on.

    Added rows or columns of zeros that do not change them change an answer by rounding errors alone.
    """
    return long >= _TALL * short, long if long > 2 * _PIECE else power_of_two(max(long, round(4 * HEADROOM)))


def _piece(m: Array) -> int:
    """Rows of a tall matrix, or columns of a wide one, to sum in one piece: so many that all sums are no larger than m."""
    return max(_PIECE, min(m.shape[-2:]))


def _gram(backend: Backend, x: Array, shift: float = 0.0) -> Array:
    """xᴴx + shift I, summed in pieces for long columns."""
    product: Array = backend.sum_over_rows(_sum_in_pieces, backend, x, shift)
    return product


def _sum_in_pieces(backend: Backend, x: Array, shift: float) -> Array:
    count, n, k = x.shape
    piece = _piece(x)
    if n <= 2 * piece or is_half(backend, x) or backend.products_only(x):
        return backend.hermitian_product(adjoint(x), x, shift)
    whole = n // piece
    head = x[:, : whole * piece, :].reshape((count * whole, piece, k))
    sums = backend.hermitian_product(adjoint(head), head).reshape((count, whole, k, k))
    rest = x[:, whole * piece :, :]
    return backend.xp.sum(sums, axis=1) + backend.hermitian_product(adjoint(rest), rest, shift)


def _in_range(backend: Backend, m: Array) -> tuple[Array, Array]:
    """m times a power of two, which prevents overflow and changes no other bit of the result; and its norm."""

    def scale(m: Array, _: Array) -> tuple[Array, Array]:
        m, _ = scale_to_unit(backend, m)
        return m, backend.norm(m)

    size = backend.norm(m)
    outside = ~((size > _ROOM[0]) & (size < _ROOM[1]))
    result: tuple[Array, Array] = backend.masked_cond(outside, scale, lambda m, size: (m, size), m, size)
    return result


class Start(NamedTuple):
    """A matrix m, R = mᴴm in the dtype of m, R and R² in a dtype of at least 32 bits, and the bound on the norm of m."""

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
            _half_segments(chain, backend.eps(m)) if is_half(backend, m) else _segments(chain, tol, backend.eps(m))
        )
        return _in_gram_form(backend, m, gram, first, segments), count
    x = m @ first
    for link in chain[1:]:
        x = x @ _factor(backend, backend.hermitian_product(adjoint(x), x, _shift(link)), link)
    return x, count


class Link(NamedTuple):
    """A step y ← y (a I + b S + c S²) with S = yᴴy, for y = t x; `slope` is the coefficient a of the step for x."""

    a: float
    b: float
    c: float
    t: float
    slope: float
    monic: bool


Chain = tuple[Link, ...]


@cached_design
def _monic(steps: tuple[Step, ...]) -> Chain:
    """The steps in units with c = 1, where the square can be completed: only products and changes of diagonals remain.

    With y ← y ρ p(yᴴy/t²) and ρ = t'/t this requires t⁵ = c t', from the last step, with t' = 1, to the first. For a small c
    this is not done, as a and the completed square would cancel.
    """
    links: list[Link] = []
    after = 1.0
    for a, b, c in reversed(steps):
        monic = c > 1e-6 and b * b <= 16 * abs(a) * c
        t = (c * after) ** 0.2 if monic else 1.0
        ratio = after / t
        links.append(Link(ratio * a, ratio * b / t**2, 1.0 if monic else ratio * c, t, a, monic))
        after = t
    return tuple(links[::-1])


def _first(backend: Backend, gram: Array, square: Array, s: Array, link: Link) -> Array:
    """The factor of the first step, for y = t s m, with R and R² of m known."""
    s = link.t * s
    s2 = s * s
    even = broadcast_scalar(s * (link.b * s2)) * gram + broadcast_scalar(s * (link.c * s2 * s2)) * square
    return backend.add_diagonal(even, link.a * s)


def _shift(link: Link) -> float:
    """The multiple of I to add to R: where c = 1 the square is completed, a I + b R + R² = (R + b/2 I)² + (a - b²/4) I."""
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
    """The steps between two computations of R: rounding errors in R grow by a² a step, and the condition of Q by a."""
    segments: list[Chain] = []
    start, growth = 0, 1.0
    for k, link in enumerate(chain):
        noise, loss = eps * growth**2, eps * growth * link.slope
        if k - start >= _MIN_SEGMENT and (noise > _SHARE_OF_R * tol or loss > _SHARE_OF_Q * tol):
            segments.append(chain[start:k])
            start, growth = k, 1.0
        growth *= link.slope
    return (*segments, chain[start:])


@cached_design
def _half_segments(chain: Chain, eps: float) -> tuple[Chain, ...]:
    """The same in half precision, where errors in R make singular values so large that the next steps would diverge.

    So R is computed again for every step, except for the last one if the error is small then.
    """
    join_last = len(chain) >= _MIN_SEGMENT and 0.5 * eps * chain[-2].slope ** 2 < _GRAM_ERROR_IN_HALF
    last = len(chain) - _MIN_SEGMENT if join_last else len(chain)
    return (*(chain[k : k + 1] for k in range(last)), *([chain[last:]] if join_last else []))


def _in_gram_form(backend: Backend, x: Array, gram: Array, factor: Array, segments: tuple[Chain, ...]) -> Array:
    """The steps on x with R = xᴴx; `factor` is that of the first step."""
    for k, segment in enumerate(segments):
        if k > 0:
            gram = _gram(backend, x, _shift(segment[0]))
            factor = _factor(backend, gram, segment[0])
        q, shift = factor, _shift(segment[0]) if k > 0 else 0.0
        for link in segment[1:]:
            if shift:
                gram = backend.add_diagonal(gram, -shift * backend.ones(gram))
            shift = _shift(link)
            # All of these are polynomials in the same R, so that they commute and their products are Hermitian.
            gram = backend.hermitian_product(backend.hermitian_product(factor, gram), factor, shift)
            factor = _factor(backend, gram, link)
            q = backend.hermitian_product(q, factor)
        x = x @ q
    return x
