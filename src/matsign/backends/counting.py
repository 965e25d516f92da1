"""A backend without numbers: it runs a solver on shapes, counts its products and factorisations, and measures its memory.

So the counts are those of the code that computes, for sizes that fit on no machine. As on an accelerator, a branch for few
members is not taken. Where values decide, the cheapest and the most expensive branch are both counted. A loop that ends when it
has converged is assumed to take `LOOP_STEPS` steps, or half of its limit if that is less.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from matsign._typing import Arrays
from matsign.backends import control_flow, inverse_by_products, shapes, stacking
from matsign.backends.control_flow import tree_map
from matsign.backends.shapes import Meter, Shape, ShapeArray

# Scaled Newton iterations take this many steps at most on most matrices (Higham 2008, section 5.8, and 8.9).
LOOP_STEPS = 8


class Work(NamedTuple):
    """A product of a stack of n × k with k × m matrices, or a factorisation of a stack of n × k matrices."""

    kind: str
    members: int
    n: int
    k: int
    m: int
    dtype: str

    @property
    def flops(self) -> float:
        """Floating-point operations, a complex product counted as four real ones."""
        real = self.members * _FLOPS[self.kind](self.n, self.k, self.m)
        return 4 * real if self.dtype.startswith("complex") else real

    @property
    def is_matrix_product(self) -> bool:
        """Whether it is a product of matrices that are not vectors or numbers."""
        return self.kind == "product" and min(self.n, self.k, self.m) > 1


# Operations of LAPACK's algorithms (Golub & Van Loan 2013), with vectors or factors where the function returns them.
_FLOPS: dict[str, Callable[[int, int, int], float]] = {
    "product": lambda n, k, m: 2 * n * k * m,
    "inverse": lambda n, k, m: 2 * n**3,
    "solve": lambda n, k, m: 2 / 3 * n**3 + 2 * n * n * m,
    "cholesky": lambda n, k, m: n**3 / 3,
    "determinant": lambda n, k, m: 2 / 3 * n**3,
    "qr": lambda n, k, m: 4 * max(n, k) * min(n, k) ** 2 - 4 / 3 * min(n, k) ** 3,
    "svd": lambda n, k, m: 14 * max(n, k) * min(n, k) ** 2 + 8 * min(n, k) ** 3,
    "svdvals": lambda n, k, m: 4 * max(n, k) * min(n, k) ** 2 - 4 / 3 * min(n, k) ** 3,
    "eigvalsh": lambda n, k, m: 4 / 3 * n**3,
    "eigh": lambda n, k, m: 9 * n**3,
    "eig": lambda n, k, m: 25 * n**3,
    "host": lambda n, k, m: 25 * n**3,
}


class NeedsOneDeviceError(TypeError):
    """A solver asked for a factorisation of a matrix that is spread over devices."""


Tally: TypeAlias = Counter[Work]


def flops(tally: Tally) -> float:
    """The operations of all work of a tally."""
    return sum(work.flops * times for work, times in tally.items())


class Counting:
    """One run of a solver on shapes: `least` and `most` are the work on the cheapest and the most expensive branches.

    With `by_products` there are no factorisations, as for a matrix whose rows are spread over devices.
    """

    name = "counting"
    xp = shapes.namespace

    def __init__(
        self,
        half_dtype: str | None = None,
        share: Callable[[Shape], float] = lambda shape: 1.0,
        *,
        by_products: bool = False,
    ) -> None:
        self.meter, self.half_dtype, self.by_products = Meter(share), half_dtype, by_products
        self.least, self.most = Tally(), Tally()
        self.converging = False
        self.row_sums = 0

    def array(self, shape: Shape, dtype: str) -> ShapeArray:
        """An array without entries, whose products are counted here."""
        return ShapeArray(shape, dtype, None, self.meter, self._record)

    def _record(self, kind: str, a: ShapeArray, b: ShapeArray) -> None:
        if self.by_products and kind != "product":
            raise NeedsOneDeviceError(kind)
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        work = Work(kind, math.prod(batch), a.shape[-2], a.shape[-1], b.shape[-1], a.dtype.name)
        self.least[work] += 1
        self.most[work] += 1

    def _run(self, f: Callable[..., Any], *arrays: Any) -> tuple[Any, Tally, Tally]:
        """The result of f, and its work alone."""
        before = self.least, self.most
        self.least, self.most = Tally(), Tally()
        result = f(*arrays)
        least, most = self.least, self.most
        self.least, self.most = before
        return result, least, most

    def masked_cond(self, mask: Any, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Any) -> Any:
        """One of the two functions, both of which have the same result here."""
        result, least, most = self._run(no, *arrays)
        del result
        result, other_least, other_most = self._run(yes, *arrays)
        self.least += other_least if flops(other_least) < flops(least) else least
        self.most += other_most if flops(other_most) > flops(most) else most
        return result

    def rare_cond(self, mask: Any, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Any) -> Any:
        return no(*arrays)

    def masked_select(self, mask: Any, yes: Any, no: Any) -> Any:
        return tree_map(lambda x: x.new(x.shape), yes)

    def loop(self, step: Callable[[Any], Any], state: Any, limit: int) -> Any:
        """Two steps on shapes, the second one counted as often as all others."""
        self.converging = True
        steps = min(LOOP_STEPS, max(1, limit // 2))
        state, _ = step(state)
        for repeats in (steps - 1,) if steps > 1 else ():
            (state, _), least, most = self._run(step, state)
            for total, part in ((self.least, least), (self.most, most)):
                total.update({work: repeats * times for work, times in part.items()})
        return state

    fold_rows = staticmethod(control_flow.fold_rows)

    def scan(self, f: Callable[..., Any], state: Any, rows: Any, *, reverse: bool = False) -> tuple[Any, Any]:
        return control_flow.scan(self.xp, f, state, rows, reverse)

    def sum_over_rows(self, f: Callable[..., Any], backend: Any, x: Any, shift: float) -> Any:
        self.row_sums += 1
        return f(self, x, shift)

    def shared_function(self, f: Callable[..., Any], backend: Any, *arrays: Any, **options: Any) -> Any:
        return f(self, *arrays, **options)

    def as_stacks(self, arrays: Sequence[Any], batch: tuple[int, ...], own: Sequence[int]) -> tuple[Any, ...]:
        return stacking.as_stacks(self.xp, arrays, batch, own)

    def tangent(self, bound: Any, value: Arrays, arrays: Arrays, directions: Arrays) -> Arrays:
        return bound.tangent(self, value, arrays, directions)

    def bind(self, bound: Any, *arrays: Any) -> tuple[Any, ...]:
        result: tuple[Any, ...] = bound(self, *arrays)
        return result

    def host_callback(self, f: Callable[..., Any], like: Any, *arrays: Any) -> Any:
        self._record("host", arrays[0], arrays[0])
        return tree_map(lambda x: x.new(x.shape), like)

    # Products and factorisations.

    def addmm(self, beta: float, x: Any, alpha: float, a: Any, b: Any) -> Any:
        return x + a @ b

    def hermitian_product(self, a: Any, b: Any, shift: float = 0.0) -> Any:
        return a @ b

    def add_diagonal(self, x: Any, alpha: Any) -> Any:
        return x.view(x.shape)

    def products_only(self, x: Any) -> bool:
        return self.by_products

    def inv(self, a: Any) -> Any:
        if self.by_products:
            return inverse_by_products.inverse(self, a)
        self._record("inverse", a, a)
        return a.new(a.shape)

    def inv_near(self, a: Any, guess: Any) -> Any:
        if self.by_products:
            return inverse_by_products.inverse(self, a, guess)
        return self.inv(a)

    def solve(self, a: Any, b: Any) -> Any:
        self._record("solve", a, b)
        return b.new(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]) + b.shape[-2:])

    def cholesky(self, a: Any) -> Any:
        self._record("cholesky", a, a)
        return a.new(a.shape)

    def log_determinant(self, a: Any) -> Any:
        self._record("determinant", a, a)
        return a.real.new(a.shape[:-2])

    def svd(self, a: Any) -> tuple[Any, Any, Any]:
        self._record("svd", a, a)
        *batch, n, m = a.shape
        k = min(n, m)
        return a.new((*batch, n, k)), a.real.new((*batch, k)), a.new((*batch, k, m))

    def eigh(self, a: Any) -> tuple[Any, Any]:
        self._record("eigh", a, a)
        return a.real.new(a.shape[:-1]), a.new(a.shape)

    def eig(self, a: Any) -> tuple[Any, Any]:
        self._record("eig", a, a)
        kind = np.result_type(a.dtype, np.complex64)
        return a.new(a.shape[:-1], kind), a.new(a.shape, kind)

    # Arrays.

    def asarray(self, x: Any, like: Any = None) -> Any:
        return x if isinstance(x, ShapeArray) else like.new(np.shape(x), np.asarray(x).dtype)

    def astype(self, x: Any, kind: str) -> Any:
        return x if x.dtype.name == kind else x.new(x.shape, kind)

    def dtype_name(self, x: Any) -> str:
        return str(x.dtype.name)

    def default_float(self) -> str:
        return "float32"

    def eye(self, n: int, like: Any) -> Any:
        return like.new((n, n))

    def zeros(self, shape: Shape, like: Any) -> Any:
        return like.new(shape)

    def ones(self, like: Any) -> Any:
        return like.real.new((len(like),))

    def int_zeros(self, like: Any) -> Any:
        return like.new((len(like),), np.int32)

    def is_complex(self, x: Any) -> bool:
        return bool(x.dtype.kind == "c")

    def eps(self, x: Any) -> float:
        return float(np.finfo(x.dtype).eps)

    def common_dtype_name(self, *xs: Any) -> str:
        return np.result_type(*(x.dtype for x in xs)).name

    def norm(self, x: Any) -> Any:
        return x.real.new((len(x),))

    largest = norm

    def trace(self, x: Any) -> Any:
        return x.new((len(x),))

    def inner(self, x: Any, y: Any) -> Any:
        return x.real.new((len(x),))

    def exponent(self, x: Any) -> Any:
        return x.new(x.shape, np.int32)

    def ldexp(self, x: Any, e: Any) -> Any:
        return x.new(np.broadcast_shapes(x.shape, e.shape))

    exact_ldexp = ldexp

    def resolve_conj(self, x: Any) -> Any:
        return x

    stop_gradient = resolve_conj

    # What a solver asks about its arrays: the answers of a program for an accelerator.

    def layout(self, x: Any) -> Any:
        return None

    def from_numpy(self, x: Any, like: Any) -> Any:
        return like.new(np.shape(x), np.asarray(x).dtype)

    def device_name(self, x: Any) -> str:
        return "none"

    def follows_others(self, x: Any) -> bool:
        return True

    def fast_half_dtype(self, x: Any) -> str | None:
        return self.half_dtype

    def full_precision(self, x: Any) -> Any:
        return contextlib.nullcontext()

    def workers(self, x: Any) -> int:
        return 0

    def _false(self, *_: Any) -> bool:
        return False

    def _true(self, *_: Any) -> bool:
        return True

    on_cpu = fast_eigh = fast_svd = dynamic_shapes = unrolls_loops = any_true = by_numpy = _false
    is_traced = known_finite = all_true = _true
