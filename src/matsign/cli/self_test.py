"""The self-test of ``matsign doctor``: small calls on one array library, with the method that ``auto`` takes for each.

`main` runs in a process of its own, because a library that does not fit the machine may end its process or never answer. It
prints one JSON object a line, so that the last line tells how far it came.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import matsign
from matsign import backends
from matsign._typing import NDArray as Array
from matsign.backends.devices import Device, devices
from matsign.core.public import spec_of

SIZES = (8, 64)
# What stands for a way of "auto" that is none of the named methods: one linear system, or a sum by doubling.
UNNAMED = "own"
# No call begins later than this many seconds after the start, or two seconds after the import of the library.
SECONDS = 7.0


class Case(NamedTuple):
    """A function on arrays of size n; `kind` says which."""

    function: Callable[..., Any]
    kind: str
    arrays: Callable[[int], tuple[Array, ...]]


def _random(n: int) -> Array:
    return np.random.default_rng(n).standard_normal((n, n))


def _positive(n: int) -> Array:
    x = _random(n)
    return x @ x.T / n + np.eye(n)


def _hermitian(n: int) -> Array:
    x = _random(n)
    return x + x.T


def _stable(n: int) -> Array:
    """A matrix with its spectrum in the left half plane."""
    return _random(n) / np.sqrt(n) - 2 * np.eye(n)


CASES = (
    Case(matsign.msign, "square", lambda n: (_random(n),)),
    Case(matsign.msign, "tall", lambda n: (_random(2 * n)[:, :n],)),
    Case(matsign.mcsgn, "general", lambda n: (_random(n),)),
    Case(matsign.mcsgn, "Hermitian", lambda n: (_hermitian(n),)),
    Case(matsign.sqrtm_pair, "general", lambda n: (-_stable(n),)),
    Case(matsign.sqrtm_pair, "positive", lambda n: (_positive(n),)),
    Case(matsign.mclip, "square", lambda n: (_random(n),)),
    Case(matsign.psd_project, "Hermitian", lambda n: (_hermitian(n),)),
    Case(matsign.solve_continuous_lyapunov, "stable", lambda n: (_stable(n), np.eye(n))),
    Case(matsign.solve_discrete_lyapunov, "stable", lambda n: (_stable(n) / 4, np.eye(n))),
    Case(matsign.solve_continuous_are, "any", lambda n: (_random(n), np.eye(n), np.eye(n), np.eye(n))),
    Case(matsign.solve_discrete_are, "any", lambda n: (_random(n) / 4, np.eye(n), np.eye(n), np.eye(n))),
    Case(matsign.solve_sylvester, "general", lambda n: (-_stable(n), _positive(n), _random(n))),
)
# JAX compiles each of the others for many seconds on an accelerator.
_COMPILED = CASES[:1]


class Outcome(NamedTuple):
    """What one call gave: `fault` is empty if it is right."""

    device: str
    function: str
    kind: str
    dtype: str
    n: int
    method: str
    backward_error: float | None
    seconds: float
    fault: str


def calls(library: str, tested: list[Device]) -> list[tuple[Case, Device, str, int]]:
    """The calls of the self-test."""
    return [
        (case, device, dtype, n)
        for device in tested
        for case in (_COMPILED if library == "jax" and device.accelerator else CASES)
        for dtype in device.dtypes
        for n in SIZES
    ]


def outcomes(library: str, tested: list[Device], seconds: float) -> Iterator[Outcome]:
    """The outcome of each call for which there is time."""
    end = time.monotonic() + seconds
    for call in calls(library, tested):
        if time.monotonic() < end:
            yield run(*call, end)


def run(case: Case, device: Device, dtype: str, n: int, end: float) -> Outcome:
    """One call with ``method="auto"``, its error, and the named method that gives the same bits."""
    arrays = tuple(device.put(x.astype(dtype)) for x in case.arrays(n))
    name, limit = case.function.__name__, 50 * n * float(np.finfo(dtype).eps)
    begin, error, method = time.monotonic(), None, ""
    try:
        _check_product(device, dtype, n)
        value, certificate = matsign.certify(case.function)(*arrays)
        error = float(certificate.backward_error)
        fault = "" if error <= limit else f"backward error {error:.1e}, where {limit:.1e} is the limit"
        taken = time.monotonic() - begin
        method = method_of(case.function, arrays, value, device, end)
    except Exception as problem:  # any exception is a finding, whatever library it comes from
        taken, fault = time.monotonic() - begin, f"{type(problem).__name__}: {' '.join(str(problem).split())}"
    return Outcome(device.name, name, case.kind, dtype, n, method, error, round(taken, 4), fault)


def _check_product(device: Device, dtype: str, n: int) -> None:
    """An ArithmeticError for an inexact product of small whole numbers, which every dtype holds exactly."""
    a, b = np.random.default_rng(0).integers(-8, 9, (2, n, n))
    found = device.get(device.put(a.astype(dtype)) @ device.put(b.astype(dtype)))
    if not np.array_equal(found, a @ b):
        raise ArithmeticError("a product of matrices of whole numbers is wrong")


def method_of(function: Callable[..., Any], arrays: tuple[Any, ...], value: Any, device: Device, end: float) -> str:
    """The named method whose result has the bits of `value`; `UNNAMED` if none has, empty if there is no time to try."""
    for method in spec_of(function, "method_of needs a function of matsign").parameters.choices["method"]:
        if time.monotonic() > end:
            return ""
        if method not in ("auto", None):
            try:
                other = function(*arrays, method=method)
            except (ValueError, ArithmeticError):  # not every method has an answer for every matrix
                continue
            if all(
                np.array_equal(device.get(x), device.get(y)) for x, y in zip(_each(value), _each(other), strict=True)
            ):
                return method
    return UNNAMED


def _each(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def main(library: str) -> None:
    """Print the devices of a library, and the outcomes on its CPU and its first accelerator."""
    begin = time.monotonic()
    backends.load(library)
    found = devices(library)
    _print_line({"devices": [{"name": x.name, "description": x.description} for x in found]})
    cpus, accelerators = ([x for x in found if x.accelerator == kind] for kind in (False, True))
    tested = cpus[:1] + accelerators[:1]
    for outcome in outcomes(library, tested, max(2.0, SECONDS + begin - time.monotonic())):
        _print_line(outcome._asdict())
    _print_line({"planned": len(calls(library, tested))})


def _print_line(content: dict[str, Any]) -> None:
    print(json.dumps(content), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
