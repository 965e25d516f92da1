"""Constants for torch.compile: numbers that it would make symbolic, and functions that it need not trace.

They do not import PyTorch, and have no effect outside torch.compile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def constant_when_compiled(f: Callable[P, R]) -> Callable[P, R]:
    """`f`, called by torch.compile during tracing; its result is a constant of the compiled code.

    Its arguments must be constants too (`as_constant`). ``torch.compiler.assume_constant_result`` sets only this attribute.
    """
    f._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return f


def as_constant(number: R) -> R:
    """The same number, which is hashed, so that torch.compile with dynamic sizes makes it a constant."""
    (constant,) = {number}
    return constant


def power_of_two(size: int) -> int:
    """The smallest power of two that is not below this size.

    For a symbolic size torch.compile turns the comparisons into guards: the compiled code is valid for every size with the
    same power.
    """
    power = 1
    while power < size:
        power *= 2
    return power
