"""The derivative of a step as an operation like the step itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from matsign._typing import Array, Arrays


@dataclass(frozen=True)
class Derivative:
    """The tangent of a step or its cotangent: of the value, the arrays and directions, and linear in those."""

    bound: Any
    kind: str
    batch: None = None
    requires_finite = True

    @property
    def fixed(self) -> bool:
        return bool(self.bound.fixed)

    @property
    def results(self) -> int:
        """How many arrays the value of the step has."""
        return len(self.bound.operation.results)

    @property
    def arguments(self) -> int:
        """How many arrays it is a function of."""
        return sum(self.bound.given)

    @property
    def directions(self) -> int:
        return self.arguments if self.kind == "tangent" else self.results

    def with_leading_axis(self, count: int) -> Derivative:
        return self

    def adjoint(self) -> Derivative:
        return Derivative(self.bound, "cotangent" if self.kind == "tangent" else "tangent")

    def like(self, operands: Arrays) -> Arrays:
        """Arrays that the results are like."""
        return operands[: self.results] if self.kind == "tangent" else operands[self.results :][: self.arguments]

    def __call__(self, backend: Any, *operands: Array) -> Arrays:
        point, directions = operands[: -self.directions], operands[-self.directions :]
        value, arrays = point[: self.results], point[self.results :]
        result = getattr(self.bound, self.kind)(backend, value, arrays, directions)
        return tuple(x.astype(y.dtype) for x, y in zip(result, self.like(operands), strict=True))

    def evaluate(self, backend: Any, *operands: Any) -> Arrays:
        """By NumPy, whose rules want finite numbers: those members that have them."""
        finite = np.ones(len(operands[0]), bool)
        for x in operands:
            finite &= np.isfinite(x).all(tuple(range(1, x.ndim)))
        if finite.all():
            return self(backend, *operands)
        out = tuple(np.full_like(x, np.nan) for x in self.like(operands))
        if finite.any():
            for x, part in zip(out, self(backend, *(x[finite] for x in operands)), strict=True):
                x[finite] = part
        return out

    def raises(self, backend: Any, result: Arrays) -> bool:
        return False
