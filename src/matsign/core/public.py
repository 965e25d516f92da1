"""From the declaration of a function to the function that is called.

A public function is a signature, a docstring and four parts: how it is solved, its tangent, its cotangent and its
residual. `declared` turns these into a call on the arrays of any library: it checks and promotes the arguments, lines up
the batches, keeps bad members away from good ones, and says what went wrong.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from numbers import Number, Real
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import numpy as np

from matsign import backends
from matsign.backends import Backend
from matsign.backends.constants import as_constant
from matsign.core.operations import Arrays, BoundOperation, Operation, Solution, shapes_of, unstack

Array = Any
P = ParamSpec("P")
R = TypeVar("R")

KINDS = ("float32", "float64", "complex64", "complex128")
HALVES = ("float16", "bfloat16")


class Residual(NamedTuple):
    """How wrong a value is: the backward error per member, and one correction step for each array of the value.

    An equation adds the separation of its linear operator, the smallest ‖L(y)‖ / ‖y‖, and whether the answer is only the
    limit of answers, at the boundary of where there are any. A function may add `measures` of its own, and arrays
    whose size an answer that is `zero` is measured against, where 1 is not the measure.
    """

    backward: Array
    correction: tuple[Array, ...]
    separation: Array | None = None
    boundary: Array | None = None
    measures: Arrays = ()
    zero: tuple[Array, ...] | None = None


def rank_tolerance(be: Backend, m: Array, rtol: float | None) -> float:
    """What counts as zero beside the largest singular value: `rtol`, or the dtype's rounding times the larger size."""
    return max(m.shape[-2:]) * be.eps(m) if rtol is None else float(rtol)


def accuracy(be: Backend, m: Array, tol: float | None) -> float:
    """How accurate the answer shall be: `tol`, or the dtype's rounding where that is larger."""
    return max(tol or 0.0, be.eps(m))


@dataclass(frozen=True, eq=False)
class Declaration:
    """A public function: its rule, how wrong an answer is, and how it is called.

    `residual(be, value, *arrays)` sees what the rule sees. The first parameters are the arrays, as many as the rule has
    shapes; the rest are options, of which `positional` may go without a name, with the `numbers` of the rule among them.
    `unbounded(be, value, *arrays)` tells which members have no derivative in some direction, so that their condition number
    is infinite. `measures` names those of the residual.
    """

    rule: Operation
    residual: Callable[..., Residual]
    arguments: tuple[str, ...]
    optional: tuple[str, ...]
    positional: tuple[str, ...]
    options: dict[str, Any]
    choices: dict[str, tuple[str | None, ...]]
    halves: bool
    hermitian: tuple[str, ...]
    unbounded: Callable[..., Array] | None
    measures: tuple[str, ...]
    plans: dict[Any, Plan] = field(default_factory=dict, init=False)

    @property
    def name(self) -> str:
        return self.rule.name

    @property
    def numbers(self) -> tuple[str, ...]:
        return self.rule.numbers


class Call(NamedTuple):
    """The arguments of one call, checked and stacked."""

    be: Backend
    stacks: Arrays  # None for an optional one that was not given, never the first, and for a number that is known
    batch: tuple[int, ...]
    kind: str
    known: dict[str, float]  # the numbers that are not arrays


class Plan(NamedTuple):
    """What the checks of a call have found: the same for all calls with arrays of these dtypes and shapes and these options."""

    call: Call  # without arrays
    step: BoundOperation
    work: str  # the dtype computed in
    by_numpy: bool  # whether NumPy computes it for arrays of another library


class Answer(NamedTuple):
    """The outcome of one call: the public value, and the stacks that certificates are computed from."""

    public: Any
    call: Call
    solution: Solution
    step: BoundOperation


def declared(
    signature: str,
    *,
    solve: Callable[..., Solution],
    residual: Callable[..., Residual],
    tangent: Callable[..., Arrays] | None = None,
    cotangent: Callable[..., Arrays] | None = None,
    linear: bool = False,
    adjoint: bool = False,
    fixed: Callable[..., bool] = lambda **options: False,
    alone: Callable[..., bool] = lambda **options: False,
    kinds: tuple[str, ...] = (),
    measures: tuple[str, ...] = (),
    choices: dict[str, tuple[str | None, ...]] | None = None,
    wrap: Callable[..., Any] | None = None,
    halves: bool = False,
    hermitian: tuple[str, ...] = (),
    unbounded: Callable[..., Array] | None = None,
    numbers: tuple[str, ...] = (),
    **empty: Any,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a public function of a signature and its parts; shapes are written as in NumPy's gufuncs, "(n,m)->(m,m)".

    An array whose default is None may be left out. A letter that stands only among the results is a size that the solver
    chooses. The body of the decorated function is never run: its signature and docstring are what it is there for.

    `choices` lists the values of options that are names; `wrap(be, *arrays)` turns the results into what the caller gets
    (default: the one array, or a tuple); `halves` lets 16-bit floats in, computed in float32;
    `hermitian` names the arrays that must be Hermitian, which is checked for NumPy; `numbers` the parameters that are one
    real number of at least 0 for every member, in an array or known beforehand; `unbounded` is that of `Declaration`;
    `empty` is what the rule says of sizes that are zero (`neutral`, `nothing`, `sizes`).
    """
    inputs, results = (shapes_of(side) for side in signature.split("->"))

    def decorate(f: Callable[P, R]) -> Callable[P, R]:
        parameters = list(inspect.signature(f).parameters.values())
        arrays, rest = parameters[: len(inputs)], [p for p in parameters[len(inputs) :] if p.name != "errors"]
        rule = Operation(
            name=f.__name__,
            shapes=inputs,
            results=results,
            solve=solve,
            tangent=tangent,
            cotangent=cotangent,
            linear=linear,
            adjoint=adjoint,
            fixed=fixed,
            alone=alone,
            kinds=kinds,
            wrap=wrap or (_single if len(results) == 1 else _several),
            numbers=numbers,
            **empty,
        )
        declaration = Declaration(
            rule=rule,
            residual=residual,
            arguments=tuple(p.name for p in arrays),
            optional=tuple(p.name for p in arrays if p.default is None),
            positional=tuple(p.name for p in rest if p.kind is p.POSITIONAL_OR_KEYWORD),
            options={p.name: p.default for p in rest},
            choices=choices or {},
            halves=halves,
            hermitian=hermitian,
            unbounded=unbounded,
            measures=measures,
        )

        @functools.wraps(f)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return cast(R, _value(declaration, args, kwargs))

        call.declaration = declaration  # type: ignore[attr-defined]
        return call

    return decorate


def _single(be: Backend, x: Array) -> Array:
    return x


def _several(be: Backend, *xs: Array) -> tuple[Array, ...]:
    return xs


def answer(declaration: Declaration, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Answer:
    """Evaluate a declaration on public arguments, with what a certificate needs."""
    key = _signature(declaration, args, kwargs)
    return _answer(declaration, args, kwargs, key, None if key is None else declaration.plans.get(key))


def _value(declaration: Declaration, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The public value alone."""
    key = _signature(declaration, args, kwargs)
    plan = None if key is None else declaration.plans.get(key)
    if plan is not None and plan.by_numpy:
        found = _value_by_numpy(declaration, plan, args, kwargs)
        if found is not None:
            return found
    return _answer(declaration, args, kwargs, key, plan).public


def _value_by_numpy(declaration: Declaration, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The value of a planned call that NumPy computes, converted once on the way in and once on the way out; None for an error.

    Every operation of a library that compiles, a change of shape too, takes as long as a small matrix.
    """
    numpy, be, batch = backends.load("numpy"), plan.call.be, plan.call.batch
    arrays = [x for x in _arrays_of(declaration, args, kwargs) if x is not None]
    given = [_stack(numpy, numpy.astype(np.asarray(x), plan.work), batch, 2) for x in arrays]
    found = plan.step.evaluate(numpy, *given)
    if plan.step.raises(numpy, found):
        return None
    value = unstack(numpy, found[: len(declaration.rule.results)], batch)
    return declaration.rule.wrap(be, *[be.from_numpy(x, arrays[0]) for x in value])


def _answer(
    declaration: Declaration, args: tuple[Any, ...], kwargs: dict[str, Any], key: Any, plan: Plan | None
) -> Answer:
    """By the plan for this key, where there is one."""
    if plan is None:
        call, step, given = _checked(declaration, args, kwargs)
        if key is not None:
            _remember(declaration, key, call, step, given)
    else:
        call, step, given = _as_planned(declaration, plan, args, kwargs)
    found, count = call.be.bind(step, *given), len(declaration.rule.results)
    solution = Solution(found[:count], *found[count:])
    return Answer(public(declaration, call, solution.value), call, solution, step)


def _checked(
    declaration: Declaration, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Call, BoundOperation, Arrays]:
    """The arguments of a call as a step and its arrays, with an error for what does not fit."""
    arguments, errors, options = bind(declaration, args, kwargs)
    call = prepare(declaration, arguments)
    _check_tolerance(declaration.name, call.kind, options.get("tol"))
    if "precision" in options and options["precision"] is None:
        options["precision"] = "half" if call.kind in HALVES else "full"
    return call, *step_of(declaration, call, errors, options)


# Plans that a function keeps.
_MOST_PLANS = 1000
_PLAIN = frozenset((str, int, float, bool, type(None)))


def _signature(declaration: Declaration, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a plan depends on, as something to look it up by; None where a call is checked every time."""
    count, key = len(declaration.arguments), []
    for k, x in enumerate(args):
        found = (type(x), x) if type(x) in _PLAIN else backends.layout(x) if k < count else None
        if found is None:
            return None
        key.append(found)
    for name, x in kwargs.items():
        found = (type(x), x) if type(x) in _PLAIN else backends.layout(x) if name in declaration.arguments else None
        if found is None:
            return None
        key.append((name, found))
    return tuple(key)


def _remember(declaration: Declaration, key: Any, call: Call, step: BoundOperation, given: Arrays) -> None:
    if len(declaration.plans) >= _MOST_PLANS:
        declaration.plans.clear()
    by_numpy = call.kind in KINDS and not declaration.numbers and call.be.by_numpy(step, *given)
    declaration.plans[key] = Plan(call._replace(stacks=()), step, call.be.dtype_name(given[0]), by_numpy)


def _as_planned(
    declaration: Declaration, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Call, BoundOperation, Arrays]:
    """The same as `_checked`, where the plan leaves the values of arrays to look at alone."""
    be, _, batch, kind, as_constant = plan.call
    arrays = [None if x is None else be.astype(x, plan.work) for x in _arrays_of(declaration, args, kwargs)]
    if declaration.hermitian:
        _check_hermitian(declaration, be, arrays)
    stacks = [None if x is None else _stack(be, x, batch, 2) for x in arrays]
    given = tuple([x for x in stacks if x is not None])
    return Call(be, (*stacks, *[None] * len(as_constant)), batch, kind, as_constant), plan.step, given


def _arrays_of(declaration: Declaration, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The array arguments in order, None for those not given."""
    names = declaration.arguments
    return [*args[: len(names)], *(kwargs.get(name) for name in names[len(args) :])]


def step_of(
    declaration: Declaration, call: Call, errors: str, options: dict[str, Any]
) -> tuple[BoundOperation, Arrays]:
    """The step that a call is, and its arrays."""
    mask, options = tuple(x is not None for x in call.stacks), options | call.known
    step = BoundOperation(
        declaration.rule, mask, tuple(sorted(options.items(), key=_name)), call.batch if errors == "raise" else None
    )
    return step, tuple(x for x in call.stacks if x is not None)


def _name(option: tuple[str, Any]) -> str:
    """By which options are sorted: their values may not compare."""
    return option[0]


def public(declaration: Declaration, call: Call, value: Arrays) -> Any:
    """A value as the caller gets it."""
    arrays = unstack(call.be, value, call.batch)
    if call.kind in HALVES:
        arrays = [call.be.astype(x, call.kind) for x in arrays]
    return declaration.rule.wrap(call.be, *arrays)


def bind(
    declaration: Declaration, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Any], str, dict[str, Any]]:
    """The array arguments in order and after them the numbers, errors=, and the options."""
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
    numbers = [number_or_array(name, k, options.pop(k)) for k in declaration.numbers]
    options = {k: _frozen(name, k, v) for k, v in {**options, "errors": errors}.items()}
    _check(name, options, {**declaration.choices, "errors": ("raise", "nan")}, declaration.options)
    errors = options.pop("errors")
    return [*(rest[n] for n in names), *numbers], errors, options


def number_or_array(name: str, key: str, value: Any) -> Any:
    """A number of at least 0 as a float, and anything that may be an array of them as it is."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, (list, tuple)) or (
        backends.library_of(value) is not None and not isinstance(value, np.generic)
    ):
        return value
    number = math.nan if isinstance(value, (bool, np.bool_)) else real_number(value)
    if not number >= 0:
        raise ValueError(f"{name}: {key} must be a number of at least 0, got {shown(value)}")
    return number


# What rounding leaves of 1 at best, and a little room.
_FINEST = {"bfloat16": 2**-8, "float16": 2**-11, "float32": 2**-21, "complex64": 2**-21}


def _check_tolerance(name: str, kind: str, tol: float | None) -> None:
    finest = _FINEST.get(kind, 2**-50)
    if tol is not None and tol < finest:
        raise ValueError(f"{name}: {kind} cannot hold tol={tol:g}; at least {finest:.1g}, or None for all it can hold")


def _frozen(name: str, key: str, option: Any) -> Any:
    """Lists and arrays as tuples: options are compared and kept. Numbers are constants of whoever compiles the call."""
    if type(option) in (int, float):
        return as_constant(option)
    if hasattr(option, "tolist"):
        try:
            option = option.tolist()
        except Exception:  # of any library, for an array without values
            raise TypeError(
                f"{name}: {key} must be known before the call, got {type(option).__name__} without values"
            ) from None
    return tuple(_frozen(name, key, x) for x in option) if isinstance(option, (list, tuple)) else option


def shown(value: Any) -> str:
    """A value for an error message: on one line, and short."""
    try:
        text = " ".join(repr(value.item() if isinstance(value, np.generic) else value).split())
    except Exception:  # whatever is wrong with the repr of a stranger's object, or a whole number too long for one
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:80]}... ({type(value).__name__})"


def _check(
    name: str, options: dict[str, Any], choices: dict[str, tuple[str | None, ...]], defaults: dict[str, Any]
) -> None:
    """A ValueError for an option that means nothing; the options mean the same everywhere."""
    for key, allowed in choices.items():
        value = options[key]
        if not (value is None or isinstance(value, str)) or value not in allowed:
            raise ValueError(f"{name}: {key} must be one of {', '.join(map(str, allowed))}, got {shown(value)}")
    for key, value in options.items():
        if isinstance(defaults.get(key), bool) and not (isinstance(value, int) and value in (0, 1)):
            raise ValueError(f"{name}: {key} must be True or False, got {shown(value)}")
    for key, lowest in (("tol", "(0"), ("rtol", "[0")):
        value = options.get(key)
        if value is None:
            continue
        number = math.nan if isinstance(value, bool) else real_number(value)
        if not (0 <= number < 1 and (number > 0 or key == "rtol")):
            raise ValueError(f"{name}: {key} must be a number in {lowest}, 1), got {shown(value)}")
        options[key] = number
    for key, value in options.items():
        if not (value is None or isinstance(value, (str, Number, tuple))):
            raise TypeError(f"{name}: {key} must be a number, a name or a list of them, got {shown(value)}")


def real_number(value: Any) -> float:
    """A real number as a float, also one too large for it; NaN for anything else."""
    if isinstance(value, float):
        return value
    if not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def prepare(declaration: Declaration, arguments: list[Any], stacked: tuple[str, ...] = ()) -> Call:
    """Arrays of one library, device and dtype, stacked to (B, n, m), without a look at their entries.

    Numbers that are floats stay floats, but for those whose names are in `stacked`; the others are stacks (B,).
    """
    names, count = (*declaration.arguments, *declaration.numbers), len(declaration.arguments)
    numbers = zip(declaration.numbers, arguments[count:], strict=True)
    fixed = {n: x for n, x in numbers if isinstance(x, float) and n not in stacked}
    be, arrays = _gather(declaration, names, [None if n in fixed else x for n, x in zip(names, arguments, strict=True)])
    loose = arrays[count:]
    arrays, kind = _promote(declaration, be, arrays[:count])
    _check_sizes(declaration, arrays)
    arrays = [x.reshape((1, 1)) if x is not None and x.ndim == 0 else x for x in arrays]
    _check_hermitian(declaration, be, arrays)
    axes = [2] * count + [0] * len(loose)
    arrays += _real_numbers(declaration, be, loose, arrays[0])
    leading = [None if x is None else tuple(x.shape[: x.ndim - k]) for x, k in zip(arrays, axes, strict=True)]
    batch = _batch(declaration, names, arrays, leading)
    stacks = (None if x is None else _stack(be, x, batch, k) for x, k in zip(arrays, axes, strict=True))
    return Call(be, tuple(stacks), batch, kind, fixed)


def _real_numbers(declaration: Declaration, be: Backend, numbers: list[Array], like: Array) -> list[Array]:
    """Numbers in the precision of the matrices, which are never promoted to theirs."""
    for name, x in zip(declaration.numbers, numbers, strict=True):
        kind = "" if x is None else be.dtype_name(x)
        if kind.startswith(("complex", "bool")):
            raise TypeError(f"{declaration.name}: {name} has dtype {kind}; wanted real numbers")
    kind = be.dtype_name(be.real(like))
    return [None if x is None else be.astype(x, kind) for x in numbers]


def _gather(declaration: Declaration, names: tuple[str, ...], arguments: list[Any]) -> tuple[Backend, list[Array]]:
    libraries = [backends.library_of(x) for x in arguments]
    present = sorted({lib for lib in libraries if lib})
    if declaration.numbers and present == ["jax", "numpy"]:
        present = ["jax"]  # a matrix of NumPy beside a traced number is a constant to JAX
    if len(present) > 1:
        whose = ", ".join(
            f"{n} is {lib or 'plain Python'}"
            for n, lib, x in zip(names, libraries, arguments, strict=True)
            if x is not None
        )
        raise TypeError(f"{declaration.name}: all arrays must come from one library; {whose}")
    be = backends.load(present[0] if present else "numpy")
    like = next((x for x, lib in zip(arguments, libraries, strict=True) if lib == be.name), None)
    arrays: list[Array] = []
    for name, x in zip(names, arguments, strict=True):
        if x is None and (name in declaration.optional or name in declaration.numbers):
            arrays.append(None)
            continue
        reason = unfit(x)
        if reason is not None:
            raise TypeError(f"{declaration.name}: {name} {reason}")
        try:
            arrays.append(be.asarray(x, like))
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            kind = ValueError if isinstance(error, ValueError) else TypeError
            raise kind(f"{declaration.name}: {name} is not a dense array of numbers: {error}") from None
    if len(arrays) > 1:
        # What is traced has no place yet, and goes where the others are.
        placed = {
            n: x
            for n, x in zip(names, arrays, strict=True)
            if x is not None and not (be.is_traced(x) and be.name == "jax")
        }
        devices = {n: be.device_name(x) for n, x in placed.items()}
        if len(set(devices.values())) > 1:
            whose = ", ".join(f"{n} is on {d}" for n, d in devices.items())
            raise ValueError(f"{declaration.name}: all arrays must be on one device; {whose}")
    return be, arrays


# What makes a dense array of a sparse one, by the libraries that have them.
_DENSE = ("toarray", "todense")


def unfit(x: Any) -> str | None:
    """What is wrong with an argument that no library makes an array of numbers of, and what helps; None if nothing is seen."""
    cls = type(x)
    if cls is np.ndarray and x.dtype.kind in "fc":
        return None
    for way in _DENSE:
        if hasattr(cls, way):
            whose = cls.__module__.partition(".")[0]
            return f"is sparse ({cls.__name__} of {whose}), which is not supported; pass its {way}() if that fits in memory"
    if backends.library_of(x) == "torch":
        other: str | None = backends.load("torch").unsupported(x)  # type: ignore[attr-defined]
        if other is not None:
            return other
        if x.is_sparse or x.is_sparse_csr:
            return f"is sparse (layout {x.layout}), which is not supported; pass its to_dense() if that fits in memory"
        return "is a nested tensor; pass its members one by one, or padded" if x.is_nested else None
    if backends.library_of(x) == "jax":
        return None
    if isinstance(x, (list, tuple)):
        inside = next((lib for lib in map(backends.library_of, _entries(x)) if lib in ("torch", "jax")), None)
        if inside:
            return f"is a {cls.__name__} of {inside} arrays; stack them into one array"
    try:
        array = np.asarray(x)
    except Exception:  # the caller tries again and reports it
        return None
    if array.dtype.kind in "US":
        return f"holds text (dtype {array.dtype}); wanted numbers"
    if array.dtype.kind == "O" and array.ndim == 0:
        return f"is {'None' if x is None else f'of type {cls.__name__}'} and no array of numbers"
    if array.dtype.kind == "O":
        held = type(next(iter(array.flat), None)).__name__
        return f"has dtype object (the first entry is of type {held}); convert it, as by np.asarray(x, dtype=float)"
    return None


def _entries(x: Any) -> Iterator[Any]:
    """What stands in nested lists and tuples."""
    for part in x:
        yield from _entries(part) if isinstance(part, (list, tuple)) else (part,)


def _promote(declaration: Declaration, be: Backend, arrays: list[Array]) -> tuple[list[Array], str]:
    """The arrays in the dtype computed in, and the dtype to answer in."""
    kinds = {n: be.dtype_name(x) for n, x in zip(declaration.arguments, arrays, strict=True) if x is not None}
    kind = next(iter(kinds.values()))
    if kind in KINDS and all(other == kind for other in kinds.values()):
        return arrays, kind
    for name, kind in kinds.items():
        if kind not in KINDS and kind not in HALVES and not kind.startswith(("int", "uint", "bool")):
            raise TypeError(f"{declaration.name}: {name} has dtype {kind}; wanted {', '.join(KINDS)}")
    kind = be.common_dtype_name(*(x for x in arrays if x is not None))
    if kind.startswith(("int", "uint", "bool")):
        kind = be.default_float()
    if kind in HALVES and not declaration.halves:
        raise TypeError(f"{declaration.name}: {kind} is too short for this function; convert to float32")
    work = "float32" if kind in HALVES else kind
    return [None if x is None else be.astype(x, work) for x in arrays], kind


def _check_sizes(declaration: Declaration, arrays: list[Array]) -> None:
    """A ValueError that says whose shape does not fit the letters of the signature."""
    sizes: dict[str, int] = {}
    source: dict[str, str] = {}
    given = [
        (name, letters, x)
        for name, letters, x in zip(declaration.arguments, declaration.rule.shapes, arrays, strict=True)
        if x is not None
    ]
    # A number is a 1 × 1 matrix; it is the matrices that say whether one fits.
    for name, letters, x in sorted(given, key=lambda item: bool(item[2].ndim == 0)):
        fits = x.ndim != 1
        for letter, size in zip(letters, x.shape[-2:] or (1, 1), strict=False):
            fits = fits and sizes.setdefault(letter, size) == size
            source.setdefault(letter, name)
        if not fits:
            as_constant = [
                f"{v} = {sizes[v]} from {source[v]}" for v in dict.fromkeys(letters) if source.get(v, name) != name
            ]
            wanted = f"(..., {letters[0]}, {letters[1]})" + (
                " with " + " and ".join(as_constant) if as_constant else ""
            )
            raise ValueError(f"{declaration.name}: {name} has shape {tuple(x.shape)}, wanted {wanted}")


def _check_hermitian(declaration: Declaration, be: Backend, arrays: list[Array]) -> None:
    """A ValueError as SciPy's. Elsewhere the solver takes the Hermitian part, so that one entry alone may be perturbed."""
    if be.name != "numpy":
        return
    for name, x in zip(declaration.arguments, arrays, strict=True):
        if name not in declaration.hermitian or x is None:
            continue
        if be.all_true(x == x.conj().mT):
            continue
        with be.full_precision(x):
            gap, size = (np.abs(y).max(initial=0) for y in (x - x.conj().mT, x))
        # With NaN or infinity this is false: those are reported member by member.
        if gap > 100 * be.eps(x) * size:
            raise ValueError(f"{declaration.name}: {name} is not Hermitian; it differs from its adjoint by {gap:.1e}")


def _batch(
    declaration: Declaration, names: tuple[str, ...], arrays: list[Array], leading: list[tuple[int, ...] | None]
) -> tuple[int, ...]:
    shapes = [shape for shape in leading if shape is not None]
    if all(shape == shapes[0] for shape in shapes[1:]):
        return shapes[0]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        said = ", ".join(f"{n} {tuple(x.shape)}" for n, x in zip(names, arrays, strict=True) if x is not None)
        raise ValueError(f"{declaration.name}: the leading axes do not broadcast: {said}") from None


def _stack(be: Backend, x: Array, batch: tuple[int, ...], axes: int) -> Array:
    """x, whose last `axes` axes are those of one member, with one leading axis in place of the batch."""
    if x.ndim == axes and batch == ():
        return x.reshape((1, *x.shape))
    own = tuple(x.shape[x.ndim - axes :])
    return be.xp.broadcast_to(x, batch + own).reshape((math.prod(batch), *own))
