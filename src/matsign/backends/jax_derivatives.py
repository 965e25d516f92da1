"""The derivative of a bound operation, with the interface of a bound operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from matsign._typing import Array, Arrays


@dataclass(frozen=True)
class Derivative:
    """The tangent or cotangent of a bound operation: a function of the value, the arrays and the directions, linear in these."""

    bound: Any
    kind: str
    batch: None = None
    requires_finite = True

    @property
    def fixed(self) -> bool:
        return bool(self.bound.fixed)

    @property
    def first_axes(self) -> int:
        return int(self.bound.first_axes)

    @property
    def results(self) -> int:
        """The number of arrays of the value."""
        return len(self.bound.operation.results)

    @property
    def arguments(self) -> int:
        """The number of arguments of the operation."""
        return sum(self.bound.given)

    @property
    def directions(self) -> int:
        return self.arguments if self.kind == "tangent" else self.results

    def with_leading_axis(self, count: int) -> Derivative:
        return self

    def adjoint(self) -> Derivative:
        return Derivative(self.bound, "cotangent" if self.kind == "tangent" else "tangent")

    def like(self, operands: Arrays) -> Arrays:
        """Arrays with the shapes and dtypes of the results."""
        return operands[: self.results] if self.kind == "tangent" else operands[self.results :][: self.arguments]

    def __call__(self, backend: Any, *operands: Array) -> Arrays:
        point, directions = operands[: -self.directions], operands[-self.directions :]
        value, arrays = point[: self.results], point[self.results :]
        result = getattr(self.bound, self.kind)(backend, value, arrays, directions)
        return tuple(x.astype(y.dtype) for x, y in zip(result, self.like(operands), strict=True))

    def evaluate(self, backend: Any, *operands: Any) -> Arrays:
        """The derivative by NumPy for finite members, NaN for the others. The value may have infinite entries."""
        finite = np.ones(len(operands[0]), bool)
        for k, x in enumerate(operands):
            entries = ~np.isnan(x) if k < self.results else np.isfinite(x)
            finite &= entries.all(tuple(range(1, x.ndim)))
        if finite.all():
            return self(backend, *operands)
        out = tuple(np.full_like(x, np.nan) for x in self.like(operands))
        if finite.any():
            for x, part in zip(out, self(backend, *(x[finite] for x in operands)), strict=True):
                x[finite] = part
        return out

    def raises(self, backend: Any, result: Arrays) -> bool:
        return False


def first_argument(bound: Any) -> int:
    """The place of the first argument, which has `first_axes` of its own, among the operands of a bound operation."""
    return bound.results if isinstance(bound, Derivative) else 0


def leading_axes(bound: Any, operands: Any) -> int:
    """The number of axes that count the members."""
    return int(operands[first_argument(bound)].ndim - bound.first_axes)
