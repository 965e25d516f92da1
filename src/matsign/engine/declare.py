"""From the declaration of a function to the function that is called.

A public function is a signature, a docstring and four parts: how it is solved, its tangent, its cotangent and its
residual. `declared` turns these into a call on the arrays of any library: it checks and promotes the arguments, lines up
the batches, keeps bad members away from good ones, and says what went wrong.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import numpy as np

from matsign import backends
from matsign.backends import Backend
from matsign.engine.failures import Failure, SpectrumError, explain
from matsign.engine.linear import per_member, rectangular_eye

Array = Any
P = ParamSpec("P")
R = TypeVar("R")

KINDS = ("float32", "float64", "complex64", "complex128")
HALVES = ("float16", "bfloat16")


class Solution(NamedTuple):
    """What a solver returns: its arrays (B, ...) and, per member, a `Failure`, the steps taken and a number to report."""

    value: tuple[Array, ...]
    failure: Array
    iterations: Array
    detail: Array


class Residual(NamedTuple):
    """How wrong a value is: the backward error per member, and one correction step for each array of the value.

    An equation adds the separation of its linear operator, the smallest ‖L(y)‖ / ‖y‖, and whether the answer is only the
    limit of answers, at the boundary of where there are any.
    """

    backward: Array
    correction: tuple[Array, ...]
    separation: Array | None = None
    boundary: Array | None = None


def solution(
    be: Backend,
    value: tuple[Array, ...],
    failure: Failure = Failure.NONE,
    failed: Array | None = None,
    iterations: Array | None = None,
    detail: Array | None = None,
) -> Solution:
    """A `Solution` in which the members of the mask `failed` have this failure."""
    xp, none = be.xp, be.no_counts(value[0])
    found = none if failed is None else xp.where(failed, none + int(failure), none)
    return Solution(
        tuple(value),
        found,
        none if iterations is None else xp.astype(iterations, xp.int32),
        none if detail is None else xp.astype(detail, xp.int32),
    )


def rank_tolerance(be: Backend, m: Array, rtol: float | None) -> float:
    """What counts as zero beside the largest singular value: `rtol`, or the dtype's rounding times the larger size."""
    return max(m.shape[-2:]) * be.eps(m) if rtol is None else float(rtol)


def accuracy(be: Backend, m: Array, tol: float | None) -> float:
    """How accurate the answer shall be: `tol`, or the dtype's rounding where that is larger."""
    return max(tol or 0.0, be.eps(m))


@dataclass(frozen=True)
class Declaration:
    """The mathematics of a public function, free of any array library.

    `solve(be, *arrays, **options)` and `residual(be, value, *arrays)` see stacks (B, n, m) of one dtype, with B and all
    sizes at least 1 and all entries finite, and None for an optional array that was not given. The first parameters are
    the arrays, as many as the signature has shapes; the rest are options, of which `positional` may go without a name.
    """

    name: str
    arguments: tuple[str, ...]
    optional: tuple[str, ...]
    positional: tuple[str, ...]
    options: dict[str, Any]
    shapes: tuple[tuple[str, ...], ...]
    results: tuple[tuple[str, ...], ...]
    solve: Callable[..., Solution]
    residual: Callable[..., Residual]
    tangent: Callable[..., Any] | None
    cotangent: Callable[..., Any] | None
    choices: dict[str, tuple[str | None, ...]]
    wrap: Callable[..., Any]
    halves: bool
    hermitian: tuple[str, ...]


class Call(NamedTuple):
    """The arguments of one call, checked and stacked."""

    be: Backend
    stacks: list[Array]  # None for an optional one that was not given, never the first
    batch: tuple[int, ...]
    sizes: dict[str, int]
    bad: Array | None
    kind: str


class Answer(NamedTuple):
    """The outcome of one call: the public value, and the stacks that certificates are computed from."""

    public: Any
    call: Call
    solution: Solution


def declared(
    signature: str,
    *,
    solve: Callable[..., Solution],
    residual: Callable[..., Residual],
    tangent: Callable[..., Any] | None = None,
    cotangent: Callable[..., Any] | None = None,
    choices: dict[str, tuple[str | None, ...]] | None = None,
    wrap: Callable[..., Any] | None = None,
    halves: bool = False,
    hermitian: tuple[str, ...] = (),
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a public function of a signature and its parts; shapes are written as in NumPy's gufuncs, "(n,m)->(m,m)".

    An array whose default is None may be left out. A letter that stands only among the results is a size that the solver
    chooses. The body of the decorated function is never run: its signature and docstring are what it is there for.

    `choices` lists the values of options that are names; `wrap(be, *arrays)` turns the results into what the caller gets
    (default: the one array, or a tuple); `halves` lets 16-bit floats in, computed in float32;
    `hermitian` names the arrays that must be Hermitian, which is checked for NumPy.
    """
    inputs, results = (_parse(side) for side in signature.split("->"))

    def decorate(f: Callable[P, R]) -> Callable[P, R]:
        parameters = list(inspect.signature(f).parameters.values())
        arrays, rest = parameters[: len(inputs)], [p for p in parameters[len(inputs) :] if p.name != "errors"]
        declaration = Declaration(
            name=f.__name__,
            arguments=tuple(p.name for p in arrays),
            optional=tuple(p.name for p in arrays if p.default is None),
            positional=tuple(p.name for p in rest if p.kind is p.POSITIONAL_OR_KEYWORD),
            options={p.name: p.default for p in rest},
            shapes=inputs,
            results=results,
            solve=solve,
            residual=residual,
            tangent=tangent,
            cotangent=cotangent,
            choices=choices or {},
            wrap=wrap or (_single if len(results) == 1 else _several),
            halves=halves,
            hermitian=hermitian,
        )

        @functools.wraps(f)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return cast(R, answer(declaration, args, kwargs).public)

        call.declaration = declaration  # type: ignore[attr-defined]
        return call

    return decorate


def _parse(side: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(part.strip("()").split(",")) for part in side.split("),("))


def _single(be: Backend, x: Array) -> Array:
    return x


def _several(be: Backend, *xs: Array) -> tuple[Array, ...]:
    return xs


def answer(declaration: Declaration, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Answer:
    """Evaluate a declaration on public arguments; the way behind both a plain call and a certified one."""
    arguments, errors, options = _bind(declaration, args, kwargs)
    call = _prepare(declaration, arguments)
    be = call.be
    with be.scoped(call.stacks[0]):
        if math.prod(call.batch) == 0 or 0 in call.sizes.values():
            solution = _nothing(declaration, call)
        else:
            solution = _mark(be, _solve(declaration, call, options), call.bad)
        public = _public(declaration, call, solution.value)
    if errors == "raise" and not be.traced(solution.failure) and solution.failure.any():
        _raise(declaration, call, solution, public)
    return Answer(public, call, solution)


# Numbers in one array of a chunk: about what a core keeps in its cache while an iteration passes over it many times, and enough
# work between two steps of Python that a second worker pays.
_CHUNK = 1 << 15


def _solve(declaration: Declaration, call: Call, options: dict[str, Any]) -> Solution:
    """The solver on the whole stack, or on a CPU on pieces of it that fit the cache."""
    be, stacks = call.be, call.stacks
    count = max(1, _CHUNK // max(math.prod(x.shape[1:]) for x in stacks if x is not None))
    workers = be.workers(stacks[0])
    if len(stacks[0]) <= count or not workers:
        return declaration.solve(be, *stacks, **options)

    def piece(i: int) -> Solution:
        with be.scoped(stacks[0]):
            return declaration.solve(be, *(None if x is None else x[i : i + count] for x in stacks), **options)

    starts = range(0, len(stacks[0]), count)
    if workers == 1:
        pieces = list(map(piece, starts))
    else:
        with ThreadPoolExecutor(min(workers, len(starts))) as pool:
            pieces = list(pool.map(piece, starts))
    value = tuple(be.xp.concat(parts) for parts in zip(*(piece.value for piece in pieces), strict=True))
    return Solution(value, *(be.xp.concat(parts) for parts in zip(*(piece[1:] for piece in pieces), strict=True)))


def _bind(
    declaration: Declaration, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Any], str, dict[str, Any]]:
    """The array arguments in order, errors=, and the options."""
    name, names = declaration.name, declaration.arguments
    options = {k: v for k, v in declaration.options.items() if v is not inspect.Parameter.empty}
    errors = "raise"
    places = (*names, *declaration.positional)
    if len(args) > len(places):
        raise TypeError(f"{name} takes {len(places)} arguments ({', '.join(places)}), got {len(args)}")
    rest = dict(zip(names, args, strict=False))
    options |= dict(zip(declaration.positional, args[len(names) :], strict=False))
    for key, value in kwargs.items():
        if key in declaration.options and key not in places[: len(args)]:
            options[key] = value
        elif key == "errors":
            errors = value
        elif key in names and key not in rest:
            rest[key] = value
        else:
            raise TypeError(
                f"{name} got an unexpected or repeated argument {key!r}; its options are {', '.join(declaration.options)}"
            )
    rest |= {n: None for n in declaration.optional if n not in rest}
    missing = [n for n in (*names, *declaration.options) if n not in rest and n not in options]
    if missing:
        raise TypeError(f"{name} misses {', '.join(missing)}")
    _check(name, {**options, "errors": errors}, {**declaration.choices, "errors": ("raise", "nan")})
    return [rest[n] for n in names], errors, options


def _check(name: str, options: dict[str, Any], choices: dict[str, tuple[str | None, ...]]) -> None:
    """A ValueError for an option that means nothing; the options mean the same everywhere."""
    for key, allowed in choices.items():
        if options[key] not in allowed:
            raise ValueError(f"{name}: {key} must be one of {', '.join(map(str, allowed))}, got {options[key]!r}")
    for key, lowest in (("tol", "(0"), ("rtol", "[0")):
        value = options.get(key)
        if value is None:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (number and 0 <= value < 1 and (value > 0 or key == "rtol")):
            raise ValueError(f"{name}: {key} must be a number in {lowest}, 1), got {value!r}")


def _prepare(declaration: Declaration, arguments: list[Any]) -> Call:
    """Arrays of one library, device and dtype, stacked to (B, n, m); members that are not finite are set aside."""
    be, arrays = _gather(declaration, arguments)
    arrays, kind = _promote(declaration, be, arrays)
    sizes = _sizes(declaration, arrays)
    arrays = [x.reshape((1, 1)) if x is not None and x.ndim == 0 else x for x in arrays]
    _check_hermitian(declaration, be, arrays)
    batch = _batch(declaration, arrays)
    stacks = [None if x is None else _stack(be, x, batch) for x in arrays]
    bad = None
    for x in stacks:
        if x is None:
            continue
        if be.traced(x) or not be.surely_finite(x):
            here = ~be.xp.isfinite(x).all((-1, -2))
            bad = here if bad is None else bad | here
    if bad is not None:
        # A harmless stand-in: no LAPACK routine ever sees a NaN.
        stacks = [None if x is None else be.xp.where(bad[:, None, None], rectangular_eye(be, x), x) for x in stacks]
    return Call(be, stacks, batch, sizes, bad, kind)


def _gather(declaration: Declaration, arguments: list[Any]) -> tuple[Backend, list[Array]]:
    libraries = [backends.library_of(x) for x in arguments]
    present = sorted({lib for lib in libraries if lib})
    if len(present) > 1:
        whose = ", ".join(
            f"{n} is {lib or 'plain Python'}"
            for n, lib, x in zip(declaration.arguments, libraries, arguments, strict=True)
            if x is not None
        )
        raise TypeError(f"{declaration.name}: all arrays must come from one library; {whose}")
    be = backends.load(present[0] if present else "numpy")
    like = next((x for x, lib in zip(arguments, libraries, strict=True) if lib), None)
    arrays: list[Array] = []
    for name, x in zip(declaration.arguments, arguments, strict=True):
        if x is None and name in declaration.optional:
            arrays.append(None)
            continue
        try:
            arrays.append(be.asarray(x, like))
        except (TypeError, ValueError) as error:
            raise type(error)(f"{declaration.name}: {name} is not a dense array of numbers: {error}") from None
    if len(arrays) > 1 and not be.traced(arrays[0]):
        devices = {n: be.where_is(x) for n, x in zip(declaration.arguments, arrays, strict=True) if x is not None}
        if len(set(devices.values())) > 1:
            whose = ", ".join(f"{n} is on {d}" for n, d in devices.items())
            raise ValueError(f"{declaration.name}: all arrays must be on one device; {whose}")
    return be, arrays


def _promote(declaration: Declaration, be: Backend, arrays: list[Array]) -> tuple[list[Array], str]:
    """The arrays in the dtype computed in, and the dtype to answer in."""
    kinds = {n: be.kind(x) for n, x in zip(declaration.arguments, arrays, strict=True) if x is not None}
    kind = next(iter(kinds.values()))
    if kind in KINDS and all(other == kind for other in kinds.values()):
        return arrays, kind
    for name, kind in kinds.items():
        if kind not in KINDS and kind not in HALVES and not kind.startswith(("int", "uint", "bool")):
            raise TypeError(f"{declaration.name}: {name} has dtype {kind}; wanted {', '.join(KINDS)}")
    kind = be.common_kind(*(x for x in arrays if x is not None))
    if kind.startswith(("int", "uint", "bool")):
        kind = be.default_float()
    if kind in HALVES and not declaration.halves:
        raise TypeError(f"{declaration.name}: {kind} is too short for this function; convert to float32")
    work = "float32" if kind in HALVES else kind
    return [None if x is None else be.astype(x, work) for x in arrays], kind


def _sizes(declaration: Declaration, arrays: list[Array]) -> dict[str, int]:
    """The value of every letter of the signature, or a ValueError that says whose shape does not fit."""
    sizes: dict[str, int] = {}
    source: dict[str, str] = {}
    given = [
        (name, letters, x)
        for name, letters, x in zip(declaration.arguments, declaration.shapes, arrays, strict=True)
        if x is not None
    ]
    # A number is a 1 × 1 matrix; it is the matrices that say whether one fits.
    for name, letters, x in sorted(given, key=lambda item: bool(item[2].ndim == 0)):
        fits = x.ndim != 1
        for letter, size in zip(letters, x.shape[-2:] or (1, 1), strict=False):
            fits = fits and sizes.setdefault(letter, size) == size
            source.setdefault(letter, name)
        if not fits:
            known = [
                f"{v} = {sizes[v]} from {source[v]}" for v in dict.fromkeys(letters) if source.get(v, name) != name
            ]
            wanted = f"(..., {letters[0]}, {letters[1]})" + (" with " + " and ".join(known) if known else "")
            raise ValueError(f"{declaration.name}: {name} has shape {tuple(x.shape)}, wanted {wanted}")
    return sizes


def _check_hermitian(declaration: Declaration, be: Backend, arrays: list[Array]) -> None:
    """A ValueError as SciPy's. Elsewhere the solver takes the Hermitian part, so that one entry alone may be perturbed."""
    if be.name != "numpy":
        return
    for name, x in zip(declaration.arguments, arrays, strict=True):
        if name not in declaration.hermitian or x is None:
            continue
        with be.scoped(x):
            gap, size = (np.abs(y).max(initial=0) for y in (x - x.conj().mT, x))
        # With NaN or infinity this is false: those are reported member by member.
        if gap > 100 * be.eps(x) * size:
            raise ValueError(f"{declaration.name}: {name} is not Hermitian; it differs from its adjoint by {gap:.1e}")


def _batch(declaration: Declaration, arrays: list[Array]) -> tuple[int, ...]:
    shapes = {tuple(x.shape[:-2]) for x in arrays if x is not None}
    if len(shapes) == 1:
        return shapes.pop()
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        said = ", ".join(
            f"{n} {tuple(x.shape)}" for n, x in zip(declaration.arguments, arrays, strict=True) if x is not None
        )
        raise ValueError(f"{declaration.name}: the leading axes do not broadcast: {said}") from None


def _stack(be: Backend, x: Array, batch: tuple[int, ...]) -> Array:
    if x.ndim == 2 and batch == ():
        return x[None]
    matrix = tuple(x.shape[-2:])
    return be.xp.broadcast_to(x, batch + matrix).reshape((math.prod(batch), *matrix))


def _nothing(declaration: Declaration, call: Call) -> Solution:
    """The answer for an empty batch or an empty matrix: zeros of the right shape."""
    be, like, count = call.be, call.stacks[0], math.prod(call.batch)
    value = tuple(be.zeros((count, *(call.sizes.get(n, 0) for n in shape)), like) for shape in declaration.results)
    return Solution(value, *(be.no_counts(value[0]) for _ in range(3)))


def _mark(be: Backend, solution: Solution, bad: Array | None) -> Solution:
    """NaN in every member that failed."""
    failure = solution.failure
    if bad is not None:
        failure = be.xp.where(bad, int(Failure.NONFINITE) + 0 * failure, failure)
    elif not be.traced(failure) and not failure.any():
        return solution
    failed = failure > 0
    value = tuple(be.xp.where(per_member(failed, x), math.nan * be.xp.ones_like(x), x) for x in solution.value)
    return solution._replace(value=value, failure=failure)


def _public(declaration: Declaration, call: Call, value: tuple[Array, ...]) -> Any:
    shaped = [call.be.settled(x[0] if call.batch == () else x.reshape(call.batch + tuple(x.shape[1:]))) for x in value]
    if call.kind in HALVES:
        shaped = [call.be.astype(x, call.kind) for x in shaped]
    return declaration.wrap(call.be, *shaped)


def _raise(declaration: Declaration, call: Call, solution: Solution, public: Any) -> None:
    failures, details = (np.asarray(x.tolist()) for x in (solution.failure, solution.detail))
    hit = np.flatnonzero(failures)
    members = [tuple(int(i) for i in np.unravel_index(k, call.batch)) if call.batch else () for k in hit]
    found = [Failure(int(failures[k])) for k in hit]
    text = explain(declaration.name, members, found, [int(details[k]) for k in hit])
    raise SpectrumError(text, members, found, public)
