"""Operations on an answer that compute numbers for each member, such as errors and condition numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import no_details
from matsign.core.operations import BoundOperation
from matsign.core.public import FunctionSpec


@dataclass(frozen=True)
class AnswerOperation(ABC):
    """Numbers for each member from the arrays of an operation, its value and its failures.

    It has the interface of `BoundOperation`, and its failures are all 0. A subclass defines how many numbers there are (`count`)
    and computes them (`numbers`).
    """

    spec: FunctionSpec
    bound: BoundOperation
    batch: None = None
    fixed = requires_finite = False

    @property
    def count(self) -> int:
        return 1

    @property
    def first_axes(self) -> int:
        return self.bound.first_axes

    @property
    def unrolls(self) -> bool:
        return self.bound.unrolls

    def with_leading_axis(self, count: int) -> Any:
        return self

    def result_shapes(self, arrays: Arrays) -> list[tuple[tuple[int, ...], str]]:
        return [((arrays[0].shape[0],), "real")] * self.count

    def raises(self, backend: Backend, flat: Arrays) -> bool:
        return False

    def __call__(self, backend: Backend, *arrays: Array) -> Arrays:
        return self.evaluate(backend, *arrays)

    def evaluate(self, backend: Backend, *arrays: Array) -> Arrays:
        count = sum(self.bound.given)
        given, value, failure = arrays[:count], arrays[count:-1], arrays[-1]
        with backend.full_precision(given[0]):
            numbers = self.numbers(backend, given, value, failure == 0)
        none = backend.int_zeros(given[0])
        return (*numbers, none, none, no_details(backend, given[0]))

    @abstractmethod
    def numbers(self, backend: Backend, given: Arrays, value: Arrays, converged: Array) -> Arrays:
        """`count` numbers for each member, from the stacks given, the value and the mask of the members that have one."""
