"""What a call of a public function costs, from the shapes of its arguments: the solver itself runs, on shapes."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from matsign.backends import Backend
from matsign.backends.counting import Counting, Tally
from matsign.backends.shapes import Shape, ValueNeededError
from matsign.core.operations import BoundOperation
from matsign.core.options import check_tolerance, short_repr
from matsign.core.public import FunctionSpec, bound_operation, checked_options
from matsign.core.validation import HALVES, KINDS, Call, check_sizes

# NumPy cannot describe the shape of an array with more than 2⁶³ entries.
_LARGEST = 10**9


class Cost(NamedTuple):
    """The work of a call, and what a device holds at most: arguments, results and temporaries together, in bytes.

    `least` and `most` differ where values decide between branches. `converging` tells whether there are loops without a fixed
    number of steps. `row_sums` counts the sums over all rows of a matrix.
    """

    least: Tally
    most: Tally
    memory: float
    converging: bool
    row_sums: int = 0


def repeated_flops(spent: Cost, short: int, count: int) -> float:
    """The operations on matrices of the short side alone, for `count` matrices whose long side is spread over devices."""
    small = (w for w in spent.most if max(w.n, w.k, w.m) <= short and w.members == count)
    return sum(work.flops * spent.most[work] for work in small)


class Request(NamedTuple):
    """A call by the shapes of its arguments, None for one that is not given; checked by `request`."""

    spec: FunctionSpec
    batch: Shape
    members: tuple[Shape | None, ...]
    dtype: str
    options: dict[str, Any]
    numbers: dict[str, float]


def request(spec: FunctionSpec, shapes: tuple[Shape, ...], dtype: str, options: dict[str, Any]) -> Request:
    """The call with arrays of these shapes; raises as the call would."""
    parameters, name = spec.parameters, spec.name
    kinds = (*KINDS, *(HALVES if parameters.halves else ()))
    if dtype not in kinds:
        raise ValueError(f"{name}: dtype must be one of {', '.join(kinds)}, got {short_repr(dtype)}")
    shapes = tuple(_checked_shape(name, shape) for shape in shapes)
    required = [a for a in parameters.arrays if a not in parameters.optional]
    if not len(required) <= len(shapes) <= len(parameters.arrays):
        wanted = " ".join([*required, *(f"[{a}]" for a in parameters.optional)])
        raise ValueError(f"{name} takes the arrays {wanted}; got {len(shapes)} sizes")
    given: list[Shape | None] = [*shapes, *[None] * (len(parameters.arrays) - len(shapes))]
    backend = Counting()
    check_sizes(parameters, [None if s is None else backend.array(s, "float32") for s in given])
    axes = [len(letters) for letters in parameters.shapes]
    try:
        batch = np.broadcast_shapes(*(s[: len(s) - k] for s, k in zip(shapes, axes, strict=False)))
    except ValueError:
        raise ValueError(f"{name}: the leading axes of {', '.join(map(str, shapes))} do not broadcast") from None
    numbers, _, options = checked_options(spec, "nan", _with_defaults(spec, options))
    check_tolerance(parameters, dtype, options)
    if not all(x is None or isinstance(x, float) for x in numbers):
        raise ValueError(f"{name}: {', '.join(parameters.numbers)} must be a number here")
    members = tuple(None if s is None else s[len(s) - k :] for s, k in zip(given, axes, strict=True))
    return Request(spec, batch, members, dtype, options, dict(zip(spec.operation.numbers, numbers, strict=True)))


def _checked_shape(name: str, shape: Any) -> Shape:
    whole = isinstance(shape, (tuple, list)) and len(shape) >= 2
    if not (whole and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape)):
        raise ValueError(f"{name}: sizes are two or more positive whole numbers, got {short_repr(shape)}")
    if max(shape) > _LARGEST:
        raise ValueError(f"{name}: sizes are at most {_LARGEST}, got {short_repr(shape)}")
    return tuple(shape)


def _with_defaults(spec: FunctionSpec, options: dict[str, Any]) -> dict[str, Any]:
    known = spec.parameters.options
    for key in options:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {close[0]}?" if close else f"; it has {', '.join(known)}"
            raise ValueError(f"{spec.name} has no option {key}{hint}")
    missing = [k for k, default in known.items() if default is inspect.Parameter.empty and k not in options]
    if missing:
        raise ValueError(f"{spec.name} needs {', '.join(missing)}")
    return known | options


def cost(
    call: Request,
    count: int,
    half_dtype: str | None = None,
    share: Callable[[Shape], float] = lambda shape: 1.0,
    *,
    by_products: bool = False,
) -> Cost:
    """The cost of `count` members in one stack on an accelerator, which holds the fraction `share(shape)` of an array."""
    counting = Counting(half_dtype, share, by_products=by_products)
    backend: Backend = counting  # type checkers compare it with the protocol
    stacks = [None if s is None else counting.array((count, *s), working_dtype(call)) for s in call.members]
    checked = Call(backend, (*stacks, *[None] * len(call.numbers)), (count,), call.dtype, call.numbers)
    bound, arrays = bound_operation(call.spec, checked, "nan", call.options)
    try:
        results = bound.evaluate(backend, *arrays)
    except ValueNeededError as error:
        raise ValueError(f"{call.spec.name} cannot be planned with these options: {error}") from None
    del results
    return Cost(counting.least, counting.most, counting.meter.peak, counting.converging, counting.row_sums)


def bound_by(call: Request) -> BoundOperation:
    """The operation of a call with its options."""
    counting = Counting()
    stacks = tuple(None if s is None else counting.array((1, *s), working_dtype(call)) for s in call.members)
    checked = Call(counting, (*stacks, *[None] * len(call.numbers)), (1,), call.dtype, call.numbers)
    return bound_operation(call.spec, checked, "nan", call.options)[0]


def working_dtype(call: Request) -> str:
    """The dtype of the arrays that the solver gets: 16-bit arguments are converted before."""
    return "float32" if call.dtype in HALVES else call.dtype
