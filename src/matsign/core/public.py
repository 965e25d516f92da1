"""What makes a function public: checked arguments on the way in, certificates and derivatives beside the answer.

The body of a public function calls its `FunctionSpec`, an object of the same module made by `public_function`: from the signature
of the function and four parts, which are how it is solved, its tangent, its cotangent and its residual. A call checks and
stacks the arguments (`validation`), solves the stack (`operations`) and gives the answer the shape of the arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from matsign import backends
from matsign._typing import Arrays
from matsign.backends import Backend
from matsign.core.members import Solution
from matsign.core.operations import BoundOperation, Operation, shapes_of, unstack
from matsign.core.options import Parameters, check_options, check_tolerance, number_or_array
from matsign.core.validation import HALVES, KINDS, Call, as_stack, check_hermitian, stack_arguments

Array = Any


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


@dataclass(frozen=True, eq=False)
class FunctionSpec:
    """A public function: its operation, its parameters, and how wrong an answer is.

    `residual(backend, value, *arrays)` sees what the operation sees. `unbounded(backend, value, *arrays)` tells which members
    have no derivative in some direction, so that their condition number is infinite. `measures` names those of the residual.
    """

    operation: Operation
    parameters: Parameters
    residual: Callable[..., Residual]
    unbounded: Callable[..., Array] | None
    measures: tuple[str, ...]
    plans: dict[Any, Plan] = field(default_factory=dict, init=False)

    @property
    def name(self) -> str:
        return self.operation.name

    def __call__(self, *arrays: Any, errors: str, **options: Any) -> Any:
        return _value(self, arrays, errors, options)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Arrays, str, dict[str, Any]]:
        """The arrays, errors= and the options of a call with these arguments."""
        try:
            binding = self.parameters.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None
        binding.apply_defaults()
        options = dict(binding.arguments)
        arrays = tuple([options.pop(name) for name in self.parameters.arrays])
        return arrays, options.pop("errors"), options


class Plan(NamedTuple):
    """What the checks of a call have found: the same for all calls with arrays of these dtypes and shapes and these options."""

    call: Call  # without arrays
    bound: BoundOperation
    working_dtype: str  # the dtype computed in
    by_numpy: bool  # whether NumPy computes it for arrays of another library


class Answer(NamedTuple):
    """The outcome of one call: the public value, and the stacks that certificates are computed from."""

    public: Any
    call: Call
    solution: Solution
    bound: BoundOperation


def public_function(
    f: Callable[..., Any],
    signature: str,
    *,
    solve: Callable[..., Solution],
    residual: Callable[..., Residual],
    tangent: Callable[..., Arrays] | None = None,
    cotangent: Callable[..., Arrays] | None = None,
    measures: tuple[str, ...] = (),
    choices: dict[str, tuple[str | None, ...]] | None = None,
    halves: bool = False,
    hermitian: tuple[str, ...] = (),
    unbounded: Callable[..., Array] | None = None,
    numbers: tuple[str, ...] = (),
    wrap: Callable[..., Any] | None = None,
    **properties: Any,
) -> FunctionSpec:
    """The object that the body of `f` calls; shapes are written as in NumPy's gufuncs, "(n,m)->(m,m)".

    The first parameters of `f` are its arrays, as many as the signature has; one whose default is None may be left out. The
    rest are options, the last one ``errors``. A letter that stands only among the results is a size that the solver chooses.

    `choices` lists the values of options that are names; `halves` lets 16-bit floats in, computed in float32; `hermitian` names
    the arrays that must be Hermitian, which is checked for NumPy; `numbers` the parameters that are one real number of at
    least 0 for every member, in an array or known beforehand; `wrap(backend, *arrays)` turns the results into what the caller
    gets (default: the one array, or a tuple). `properties` are those of the `Operation`.
    """
    inputs, results = (shapes_of(side) for side in signature.split("->"))
    operation = Operation(
        name=f.__name__,
        shapes=inputs,
        results=results,
        solve=solve,
        tangent=tangent,
        cotangent=cotangent,
        wrap=wrap or (_one_array if len(results) == 1 else _all_arrays),
        numbers=numbers,
        **properties,
    )
    parameters = Parameters.of(f, inputs, numbers=numbers, choices=choices or {}, halves=halves, hermitian=hermitian)
    spec = FunctionSpec(operation, parameters, residual, unbounded, measures)
    f.__dict__["spec"] = spec
    return spec


def spec_of(f: Callable[..., Any], wanted: str) -> FunctionSpec:
    """That of a public function; for anything else a TypeError that says what was wanted."""
    spec = getattr(f, "spec", None)
    if not isinstance(spec, FunctionSpec):
        raise TypeError(f"{wanted}, got {f!r}")
    return spec


def _one_array(backend: Backend, x: Array) -> Array:
    return x


def _all_arrays(backend: Backend, *xs: Array) -> tuple[Array, ...]:
    return xs


def answer(spec: FunctionSpec, arrays: tuple[Any, ...], errors: str, options: dict[str, Any]) -> Answer:
    """Evaluate a function on public arguments, with what a certificate needs."""
    key = _layout_of_call(arrays, errors, options)
    return _answer(spec, arrays, errors, options, key, None if key is None else spec.plans.get(key))


def _value(spec: FunctionSpec, arrays: tuple[Any, ...], errors: str, options: dict[str, Any]) -> Any:
    """The public value, without what a certificate needs."""
    key = _layout_of_call(arrays, errors, options)
    plan = None if key is None else spec.plans.get(key)
    if plan is not None and plan.by_numpy:
        result = _value_by_numpy(spec, plan, arrays)
        if result is not None:
            return result
    return _answer(spec, arrays, errors, options, key, plan).public


def _value_by_numpy(spec: FunctionSpec, plan: Plan, arrays: tuple[Any, ...]) -> Any:
    """The value of a planned call that NumPy computes, converted once on the way in and once on the way out; None for an error.

    Every operation of a library that compiles, a change of shape too, takes as long as a small matrix.
    """
    numpy, backend, batch = backends.load("numpy"), plan.call.backend, plan.call.batch
    present = [x for x in arrays if x is not None]
    given = [as_stack(numpy, numpy.astype(np.asarray(x), plan.working_dtype), batch, 2) for x in present]
    result = plan.bound.evaluate(numpy, *given)
    if plan.bound.raises(numpy, result):
        return None
    value = unstack(numpy, result[: len(spec.operation.results)], batch)
    return spec.operation.wrap(backend, *[backend.from_numpy(x, present[0]) for x in value])


def _answer(
    spec: FunctionSpec, arrays: tuple[Any, ...], errors: str, options: dict[str, Any], key: Any, plan: Plan | None
) -> Answer:
    """By the plan for this key, where there is one."""
    if plan is None:
        call, bound, given = checked_call(spec, arrays, errors, options)
        if key is not None:
            _store_plan(spec, key, call, bound, given)
    else:
        call, bound, given = _planned_call(spec, plan, arrays)
    solution = Solution.of(call.backend.bind(bound, *given))
    return Answer(as_public(spec, call, solution.value), call, solution, bound)


def checked_call(
    spec: FunctionSpec, arrays: tuple[Any, ...], errors: str, options: dict[str, Any]
) -> tuple[Call, BoundOperation, Arrays]:
    """The arguments of a call as a bound operation and its arrays, with an error for what does not fit."""
    numbers, errors, options = checked_options(spec, errors, options)
    call = stack_arguments(spec.parameters, [*arrays, *numbers])
    check_tolerance(spec.name, call.dtype_name, options.get("tol"))
    return call, *bound_operation(spec, call, errors, options)


def checked_options(spec: FunctionSpec, errors: str, options: dict[str, Any]) -> tuple[list[Any], str, dict[str, Any]]:
    """The numbers among the options, errors=, and the other options."""
    options = dict(options)
    numbers = [number_or_array(spec.name, name, options.pop(name)) for name in spec.operation.numbers]
    options = check_options(spec.parameters, options | {"errors": errors})
    return numbers, options.pop("errors"), options


def bound_operation(
    spec: FunctionSpec, call: Call, errors: str, options: dict[str, Any]
) -> tuple[BoundOperation, Arrays]:
    """The operation that a call is, and its arrays."""
    options = options | call.known
    if "precision" in options and options["precision"] is None:
        options["precision"] = "half" if call.dtype_name in HALVES else "full"
    mask = tuple(x is not None for x in call.stacks)
    batch = call.batch if errors == "raise" else None
    bound = BoundOperation(spec.operation, mask, tuple(sorted(options.items(), key=_option_name)), batch)
    return bound, tuple(x for x in call.stacks if x is not None)


def _option_name(option: tuple[str, Any]) -> str:
    """By which options are sorted: their values may not compare."""
    return option[0]


# Plans that a function keeps.
_MAX_PLANS = 1000
_KEY_TYPES = frozenset((str, int, float, bool, type(None)))


def _layout_of_call(arrays: tuple[Any, ...], errors: str, options: dict[str, Any]) -> Any:
    """What a plan depends on, as something to look it up by; None where a call is checked every time."""
    if type(errors) is not str:
        return None
    key: list[Any] = [errors]
    for x in arrays:
        entry = (type(x), x) if type(x) in _KEY_TYPES else backends.layout(x)
        if entry is None:
            return None
        key.append(entry)
    for name, x in options.items():
        if type(x) not in _KEY_TYPES:
            return None
        key.append((name, type(x), x))
    return tuple(key)


def _store_plan(spec: FunctionSpec, key: Any, call: Call, bound: BoundOperation, given: Arrays) -> None:
    if len(spec.plans) >= _MAX_PLANS:
        spec.plans.clear()
    by_numpy = call.dtype_name in KINDS and not spec.operation.numbers and call.backend.by_numpy(bound, *given)
    spec.plans[key] = Plan(call._replace(stacks=()), bound, call.backend.dtype_name(given[0]), by_numpy)


def _planned_call(spec: FunctionSpec, plan: Plan, arrays: tuple[Any, ...]) -> tuple[Call, BoundOperation, Arrays]:
    """The same as `checked_call`, where the plan leaves the values of arrays to look at alone."""
    backend, _, batch, dtype_name, known = plan.call
    given = [None if x is None else backend.astype(x, plan.working_dtype) for x in arrays]
    if spec.parameters.hermitian:
        check_hermitian(spec.parameters, backend, given)
    stacks = [None if x is None else as_stack(backend, x, batch, 2) for x in given]
    call = Call(backend, (*stacks, *[None] * len(known)), batch, dtype_name, known)
    return call, plan.bound, tuple([x for x in stacks if x is not None])


def as_public(spec: FunctionSpec, call: Call, value: Arrays) -> Any:
    """A value as the caller gets it."""
    arrays = unstack(call.backend, value, call.batch)
    if call.dtype_name in HALVES:
        arrays = [call.backend.astype(x, call.dtype_name) for x in arrays]
    return spec.operation.wrap(call.backend, *arrays)
