"""Public functions: their arguments are checked, solved as a stack, and the answer gets the shape of the arguments.

The body of a public function calls its `FunctionSpec`, an object of the same module made by `public_function`: from the signature
of the function and four functions: its solver, tangent, cotangent and residual. A call checks and stacks the arguments
(`validation`), solves the stack (`operations`) and gives the answer the shape of the arguments.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from matsign import backends
from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.backends.adapters import BoundFunction, adapter_name, adapter_of
from matsign.core.batch_calls import batch_call
from matsign.core.distributed import solve_by_products
from matsign.core.members import Solution
from matsign.core.operations import BoundOperation, Operation, shapes_of, unstack
from matsign.core.options import Parameters, check_options, check_tolerance, number_or_array
from matsign.core.validation import HALVES, KINDS, Call, check_hermitian, finite_estimates, stack_arguments


class Residual(NamedTuple):
    """Errors of a value: the backward error of each member, and one correction for each array of the value.

    An equation adds the separation of its linear operator, the smallest ‖L(y)‖ / ‖y‖, and the members of `boundary`, whose
    value is only a limit of solutions. A function may add `measures` of its own. The correction of a zero value is divided by
    the norms of the arrays `zero` (default: by 1).
    """

    backward: Array
    correction: tuple[Array, ...]
    separation: Array | None = None
    boundary: Array | None = None
    measures: Arrays = ()
    zero: tuple[Array, ...] | None = None


@dataclass(frozen=True, eq=False)
class FunctionSpec:
    """A public function: its operation, its parameters and its residual.

    `residual(backend, value, *arrays)` gets the stacks that the operation gets. `unbounded(backend, value, *arrays)` is the mask
    of the members without a derivative in some direction: their condition number is infinite. Both also get the options that
    are their keyword-only arguments. `measures` are the names of
    `Residual.measures`.
    """

    operation: Operation
    parameters: Parameters
    residual: Callable[..., Residual]
    unbounded: Callable[..., Array] | None
    measures: tuple[str, ...]
    function: Callable[..., Any]
    plans: dict[Any, Plan] = field(default_factory=dict, init=False)

    @property
    def name(self) -> str:
        return self.operation.name

    def __call__(self, *arrays: Any, errors: str, **options: Any) -> Any:
        return _value(self, arrays, errors, options)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Arrays, str, dict[str, Any]]:
        """The arrays, ``errors`` and the options of a call with these arguments."""
        try:
            binding = self.parameters.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None
        binding.apply_defaults()
        options = dict(binding.arguments)
        arrays = tuple([options.pop(name) for name in self.parameters.arrays])
        return arrays, options.pop("errors"), options

    def by_adapter(
        self,
        arrays: tuple[Any, ...],
        errors: str,
        options: dict[str, Any],
        transform: Callable[..., Any] | None = None,
        results: tuple[tuple[str, ...], ...] | None = None,
    ) -> Any:
        """The value for arrays in chunks, with names or spread over processes; NotImplemented for plain ones.

        It is the value of the function or of what `transform` makes of it, whose arrays then have the axes `results`.
        """
        numbers = self.operation.numbers
        arguments = (*arrays, *(options[name] for name in numbers))
        adapter = adapter_of(arguments)
        if adapter is None:
            return NotImplemented
        if needs_values(self.operation, options) and adapter_name(arguments) in ("dask", "torch"):
            raise ValueError(
                f"{self.name}: {self.operation.decides} needs all values at once, but arrays in chunks or spread over processes "
                "have them apart; compute the option that it stands for first"
            )
        options = {name: x for name, x in options.items() if name not in numbers} | {"errors": errors}
        keywords = self.parameters.keyword_arrays
        call = batch_call(
            BoundFunction(self.function, options, transform, (*keywords, *numbers) if keywords else ()),
            *(self.operation, self.parameters, arguments),
            self.operation.results if results is None else results,
        )
        if self.operation.by_products is not None and transform is None:
            check = functools.partial(checked_call, self, errors=errors, options=options)
            call = replace(call, by_products=functools.partial(solve_by_products, check))
        return adapter.apply(call)


class Plan(NamedTuple):
    """The result of the checks, which is the same for all calls with these dtypes, shapes and options."""

    call: Call  # without arrays
    bound: BoundOperation
    working_dtype: str  # the dtype of the computation
    by_numpy: bool  # whether NumPy computes the value although the arrays are of another library


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
    real_only: str = "",
    keyword_arrays: tuple[str, ...] = (),
    unbounded: Callable[..., Array] | None = None,
    numbers: tuple[str, ...] = (),
    signed: tuple[str, ...] = (),
    bounds: tuple[str, ...] = (),
    weights: tuple[str, ...] = (),
    columns: tuple[str, ...] = (),
    rows: tuple[str, ...] = (),
    replaceable: tuple[str, ...] = (),
    check_given: Callable[[frozenset[str]], str | None] | None = None,
    estimates: tuple[str, ...] = (),
    wrap: Callable[..., Any] | None = None,
    **properties: Any,
) -> FunctionSpec:
    """The `FunctionSpec` that the body of `f` calls; shapes are written as in NumPy's gufuncs, "(n,m)->(m,m)".

    The first parameters of `f` are its arrays, as many as the signature has, the last ones perhaps by keyword only
    (`keyword_arrays`); an array with the default None is optional. The other parameters are options, the last one ``errors``. A
    letter that occurs only in the results is a size that the solver chooses.

    `choices` lists the allowed values of options that are strings; `halves` allows 16-bit floats, which are converted to
    float32; `hermitian` names the arrays that must be Hermitian, which is checked for NumPy; `real_only` is the reason for which
    complex arrays are refused, if they are; `numbers` names the parameters that are real numbers, either a float or an array
    with one for each member, and at least 0 but for those in `signed`, which may be None; `replaceable` names the arrays without
    a default that may be None, if `check_given(names of the given arrays)` has no complaint; `estimates` names those that only
    save time, and may hold NaN; `bounds` names the tolerances that are numbers of any size; a vector in place of one of the
    `weights` is a diagonal, of `columns` and `rows` a column or a row; `wrap(backend, *arrays)` makes the public value from the
    results (default: the one array, or a tuple). `properties` are
    fields of the `Operation`.
    """
    inputs, results = (shapes_of(side) for side in signature.split("->"))
    vectors = dict.fromkeys(weights, "diagonal") | dict.fromkeys(columns, "column") | dict.fromkeys(rows, "row")
    checks: dict[str, Any] = {"halves": halves, "hermitian": hermitian, "real_only": real_only, "signed": signed}
    checks |= {
        "vectors": vectors,
        "choices": choices or {},
        "replaceable": replaceable,
        "check_given": check_given,
        "estimates": estimates,
        "guesses": properties.get("guesses", ()),
        "bounds": bounds,
    }
    parameters = Parameters.of(f, inputs, keyword_arrays, numbers=numbers, **checks)
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
    spec = FunctionSpec(operation, parameters, residual, unbounded, measures, f)
    f.__dict__["spec"] = spec
    return spec


def spec_of(f: Callable[..., Any], wanted: str) -> FunctionSpec:
    """The `FunctionSpec` of a public function; a TypeError with the text `wanted` for anything else."""
    spec = getattr(f, "spec", None)
    if not isinstance(spec, FunctionSpec):
        raise TypeError(f"{wanted}, got {f!r}")
    return spec


def _one_array(backend: Backend, x: Array) -> Array:
    return x


def _all_arrays(backend: Backend, *xs: Array) -> tuple[Array, ...]:
    return xs


def answer(spec: FunctionSpec, arrays: tuple[Any, ...], errors: str, options: dict[str, Any]) -> Answer:
    """The `Answer` of a function for public arguments, from which a certificate is computed."""
    key = _layout_of_call(spec, arrays, errors, options)
    return _answer(spec, arrays, errors, options, key, None if key is None else spec.plans.get(key))


def _value(spec: FunctionSpec, arrays: tuple[Any, ...], errors: str, options: dict[str, Any]) -> Any:
    """The public value alone."""
    key = _layout_of_call(spec, arrays, errors, options)
    plan = None if key is None else spec.plans.get(key)
    if plan is not None and plan.by_numpy:
        result = _value_by_numpy(spec, plan, arrays)
        if result is not None:
            return result
    if plan is None:
        result = spec.by_adapter(arrays, errors, options)
        if result is not NotImplemented:
            return result
    return _answer(spec, arrays, errors, options, key, plan).public


def _value_by_numpy(spec: FunctionSpec, plan: Plan, arrays: tuple[Any, ...]) -> Any:
    """The value of a planned call by NumPy, with one conversion of the arguments and one of the result; None for an error.

    In eager JAX one operation, even a reshape, takes as long as solving a small matrix.
    """
    numpy, backend, batch = backends.load("numpy"), plan.call.backend, plan.call.batch
    converted = [None if x is None else numpy.astype(np.asarray(x), plan.working_dtype) for x in arrays]
    stacks = numpy.as_stacks(converted, batch, [len(s) for s in spec.operation.shapes])
    stacks = finite_estimates(spec.parameters, numpy, stacks)
    result = plan.bound.evaluate(numpy, *(x for x in stacks if x is not None))
    if plan.bound.raises(numpy, result):
        return None
    value = unstack(numpy, result, batch, spec.operation.results)
    return spec.operation.wrap(backend, *[backend.from_numpy(x, arrays[0]) for x in value])


def _answer(
    spec: FunctionSpec, arrays: tuple[Any, ...], errors: str, options: dict[str, Any], key: Any, plan: Plan | None
) -> Answer:
    """The `Answer`, by the plan for this key if there is one."""
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
    """The arguments of a call as a bound operation and its arrays; raises for invalid arguments."""
    numbers, errors, options = checked_options(spec, errors, options)
    call = stack_arguments(spec.parameters, [*arrays, *numbers])
    check_tolerance(spec.parameters, call.dtype_name, options)
    return call, *bound_operation(spec, call, errors, decided_options(spec, call, options))


def decided_options(spec: FunctionSpec, call: Call, options: dict[str, Any]) -> dict[str, Any]:
    """The options, of which some may depend on the values of the arrays."""
    operation = spec.operation
    return operation.decide(call.backend, call.stacks, options) if needs_values(operation, options) else options


def needs_values(operation: Operation, options: dict[str, Any]) -> bool:
    """Whether the values of the arrays decide on some of the options."""
    return bool(operation.decides) and options[operation.decides] is not None


def checked_options(spec: FunctionSpec, errors: str, options: dict[str, Any]) -> tuple[list[Any], str, dict[str, Any]]:
    """The numbers among the options, ``errors``, and the other options."""
    options = dict(options)
    numbers = [number_or_array(spec.parameters, name, options.pop(name)) for name in spec.operation.numbers]
    options = check_options(spec.parameters, options | {"errors": errors})
    return numbers, options.pop("errors"), options


def bound_operation(
    spec: FunctionSpec, call: Call, errors: str, options: dict[str, Any]
) -> tuple[BoundOperation, Arrays]:
    """The operation of a call with its options, and its arrays."""
    options = options | call.known
    if "precision" in options and options["precision"] is None:
        options["precision"] = "half" if call.dtype_name in HALVES else "full"
    numbers = zip(spec.operation.numbers, call.stacks[len(spec.operation.shapes) :], strict=True)
    spec.operation.check(**{n: x for n, x in numbers if x is not None}, **options)
    mask = tuple(x is not None for x in call.stacks)
    batch = call.batch if errors == "raise" else None
    bound = BoundOperation(spec.operation, mask, tuple(sorted(options.items(), key=_option_name)), batch)
    return bound, tuple(x for x in call.stacks if x is not None)


def _option_name(option: tuple[str, Any]) -> str:
    """The name of an option. Options are sorted by it, because their values may not be comparable."""
    return option[0]


# A function that has stored this many plans discards them all.
_MAX_PLANS = 1000
_KEY_TYPES = frozenset((str, int, float, bool, type(None)))


def _layout_of_call(spec: FunctionSpec, arrays: tuple[Any, ...], errors: str, options: dict[str, Any]) -> Any:
    """The key of the plan of a call; None for a call that must be checked every time."""
    if type(errors) is not str:
        return None
    for name in spec.parameters.signed:
        if options[name] is not None:
            return None  # each value would need a plan
    if needs_values(spec.operation, options):
        return None
    key: list[Any] = [errors]
    for x, letters in zip(arrays, spec.operation.shapes, strict=True):
        entry = None if x is None else backends.layout(x)
        if x is not None and (entry is None or x.ndim < len(letters)):
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
    no_numbers = not call.known and all(x is None for x in call.stacks[len(spec.operation.shapes) :])
    by_numpy = call.dtype_name in KINDS and no_numbers and call.backend.by_numpy(bound, *given)
    spec.plans[key] = Plan(call._replace(stacks=()), bound, call.backend.dtype_name(given[0]), by_numpy)


def _planned_call(spec: FunctionSpec, plan: Plan, arrays: tuple[Any, ...]) -> tuple[Call, BoundOperation, Arrays]:
    """As `checked_call`, with the plan; only checks of the values of arrays are repeated."""
    backend, _, batch, dtype_name, known = plan.call
    # A guess may be infinite in float32.
    with backend.full_precision(arrays[0]) if spec.parameters.guesses else contextlib.nullcontext():
        given = [None if x is None else backend.astype(x, plan.working_dtype) for x in arrays]
    if spec.parameters.hermitian:
        check_hermitian(spec.parameters, backend, given)
    stacks = backend.as_stacks(given, batch, [len(s) for s in spec.operation.shapes])
    stacks = finite_estimates(spec.parameters, backend, stacks)
    call = Call(backend, (*stacks, *[None] * len(spec.operation.numbers)), batch, dtype_name, known)
    return call, plan.bound, tuple([x for x in stacks if x is not None])


def as_public(spec: FunctionSpec, call: Call, value: Arrays) -> Any:
    """Stacks as the public value: with the leading axes and the dtype of the arguments."""
    arrays = unstack(call.backend, value, call.batch, spec.operation.results)
    if call.dtype_name in HALVES:
        arrays = [call.backend.astype(x, call.dtype_name) for x in arrays]
    return spec.operation.wrap(call.backend, *arrays)
