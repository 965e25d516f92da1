"""Checks of the arguments that are not arrays: options, tolerances, numbers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Number, Real
from typing import Any

import numpy as np

from matsign import backends
from matsign.backends.constants import as_constant


@dataclass(frozen=True, eq=False)
class Parameters:
    """The parameters of a public function.

    The first ones are its `arrays`, and after these the `keyword_arrays`, which are passed by keyword only; those named in
    `optional` may be None, and so may the `replaceable` ones, which have no default: `check_given` gets the names of the arrays
    that are given, and tells what is wrong with the choice. `estimates` are arrays that only save time, and so are those at the
    positions in `guesses`, which have no part in the dtype of the result. The others are `options`,
    a dictionary of their defaults, which includes the `numbers` of the operation, at least 0 but for those in `signed`. The
    tolerances in `bounds` are numbers of any size. `choices` lists the allowed values of options that are strings; `halves`
    allows 16-bit floats; `hermitian` names the arrays that must be Hermitian; `real_only` tells why complex arrays are refused,
    and is empty where they are not. `vectors` tells what a vector stands for in place of an array: a "column", a "row", or the
    "diagonal" of a weight, which may also be a number, that multiple of the identity.
    """

    name: str
    signature: inspect.Signature
    shapes: tuple[tuple[str, ...], ...]
    arrays: tuple[str, ...]
    optional: tuple[str, ...]
    options: dict[str, Any]
    numbers: tuple[str, ...]
    signed: tuple[str, ...]
    choices: dict[str, tuple[str | None, ...]]
    halves: bool
    hermitian: tuple[str, ...]
    real_only: str = ""
    keyword_arrays: tuple[str, ...] = ()
    replaceable: tuple[str, ...] = ()
    check_given: Callable[[frozenset[str]], str | None] | None = None
    estimates: tuple[str, ...] = ()
    guesses: tuple[int, ...] = ()
    bounds: tuple[str, ...] = ()
    vectors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        f: Callable[..., Any],
        shapes: tuple[tuple[str, ...], ...],
        keyword_arrays: tuple[str, ...] = (),
        **properties: Any,
    ) -> Parameters:
        """The parameters of a function whose first ones, and then the `keyword_arrays`, are arrays of these shapes."""
        signature = inspect.signature(f)
        every = list(signature.parameters.values())
        first = every[: len(shapes) - len(keyword_arrays)]
        arrays = [*first, *(signature.parameters[name] for name in keyword_arrays)]
        rest = [p for p in every if p not in arrays and p.name != "errors"]
        return cls(
            f.__name__,
            signature,
            shapes,
            arrays=tuple(p.name for p in arrays),
            optional=tuple(p.name for p in arrays if p.default is None),
            options={p.name: p.default for p in rest},
            keyword_arrays=keyword_arrays,
            **properties,
        )

    def may_be_none(self, name: str) -> bool:
        """Whether an array may be left out, or replaced by another one."""
        return name in self.optional or name in self.replaceable

    def check_choice(self, arrays: list[Any]) -> None:
        """Raise a ValueError if these arrays, None for those that are not given, do not state a problem."""
        if self.check_given is None:
            return
        given = frozenset(name for name, x in zip(self.arrays, arrays, strict=False) if x is not None)
        complaint = self.check_given(given)
        if complaint is not None:
            raise ValueError(f"{self.name}: {complaint}")


def check_options(parameters: Parameters, options: dict[str, Any]) -> dict[str, Any]:
    """The options with lists as tuples and tolerances as floats; raises for an invalid option."""
    name = parameters.name
    options = {key: _as_hashable(name, key, value) for key, value in options.items()}
    _check_choices(name, options, parameters.choices | {"errors": ("raise", "nan")})
    _check_flags(name, options, parameters.options)
    _check_tolerances(parameters, options)
    for key, value in options.items():
        if not (value is None or isinstance(value, (str, Number, tuple))):
            raise TypeError(f"{name}: {key} must be a number, a name or a list of them, got {short_repr(value)}")
    return options


def _check_choices(name: str, options: dict[str, Any], choices: dict[str, tuple[str | None, ...]]) -> None:
    for key, allowed in choices.items():
        value = options[key]
        if not (value is None or isinstance(value, str)) or value not in allowed:
            raise ValueError(f"{name}: {key} must be one of {', '.join(map(str, allowed))}, got {short_repr(value)}")


def _check_flags(name: str, options: dict[str, Any], defaults: dict[str, Any]) -> None:
    for key, value in options.items():
        if isinstance(defaults.get(key), bool) and not (isinstance(value, int) and value in (0, 1)):
            raise ValueError(f"{name}: {key} must be True or False, got {short_repr(value)}")


def _check_tolerances(parameters: Parameters, options: dict[str, Any]) -> None:
    """Replace `tol` and `rtol` by floats; a ValueError if they are out of range."""
    for key, lowest in (("tol", "(0"), ("rtol", "[0")):
        value = options.get(key)
        if value is None:
            continue
        number = math.nan if isinstance(value, bool) else real_number(value)
        top, allowed = (math.inf, "at least 0") if key in parameters.bounds else (1, f"in {lowest}, 1)")
        if not (0 <= number < top and (number > 0 or key == "rtol" or key in parameters.bounds)):
            raise ValueError(f"{parameters.name}: {key} must be a number {allowed}, got {short_repr(value)}")
        options[key] = number


def number_or_array(parameters: Parameters, key: str, value: Any) -> Any:
    """A number as a float; an array or a list is returned unchanged, and so is None if it is the default."""
    if value is None and parameters.options[key] is None:
        return None
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, (list, tuple)) or (
        backends.library_of(value) is not None and not isinstance(value, np.generic)
    ):
        return value
    number = math.nan if isinstance(value, (bool, np.bool_)) else real_number(value)
    if key in parameters.signed and not math.isfinite(number):
        raise ValueError(f"{parameters.name}: {key} must be a finite real number, got {short_repr(value)}")
    if key not in parameters.signed and not number >= 0:
        raise ValueError(f"{parameters.name}: {key} must be a number of at least 0, got {short_repr(value)}")
    return number


# The smallest tolerances that the rounding of each dtype permits, with a margin.
_SMALLEST_TOLERANCE = {"bfloat16": 2**-8, "float16": 2**-11, "float32": 2**-21, "complex64": 2**-21}


def check_tolerance(parameters: Parameters, kind: str, options: dict[str, Any]) -> None:
    smallest, tol = _SMALLEST_TOLERANCE.get(kind, 2**-50), options.get("tol")
    if tol is not None and tol < smallest and "tol" not in parameters.bounds:
        raise ValueError(
            f"{parameters.name}: {kind} cannot hold tol={tol:g}; at least {smallest:.1g}, or None for all it can hold"
        )


def known_options(f: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options that are keyword arguments of f."""
    wanted = [p.name for p in inspect.signature(f).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return {name: options[name] for name in wanted if name in options}


def _as_hashable(name: str, key: str, option: Any) -> Any:
    """Lists and arrays as tuples, because options are keys of dictionaries; numbers as constants for torch.compile."""
    if type(option) in (int, float):
        return as_constant(option)
    if getattr(option, "requires_grad", False):
        raise TypeError(f"{name}: there is no derivative in {key}; pass a number, such as {key}.detach()")
    if hasattr(option, "tolist"):
        try:
            option = option.tolist()
        except Exception:  # each library raises its own for an array without values
            raise TypeError(
                f"{name}: {key} must be known before the call, got {type(option).__name__} without values"
            ) from None
    return tuple(_as_hashable(name, key, x) for x in option) if isinstance(option, (list, tuple)) else option


def short_repr(value: Any) -> str:
    """The repr of a value on one short line, for an error message."""
    try:
        text = " ".join(repr(value.item() if isinstance(value, np.generic) else value).split())
    except Exception:  # an object whose repr fails, or an integer with too many digits for one
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:80]}... ({type(value).__name__})"


def real_number(value: Any) -> float:
    """A real number as a float, infinite if it is too large; NaN for anything else."""
    if isinstance(value, float):
        return value
    if not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]
