"""What a compiler takes as known: numbers that it would leave open, and functions of numbers that it need not follow.

Both are written in plain Python, so that no compiler has to be imported; without one they change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def constant_when_compiled(f: Callable[P, R]) -> Callable[P, R]:
    """`f`, which torch.compile calls while it traces, and whose result is a constant of the compiled code.

    Its arguments must be constants too (`as_constant`). ``torch.compiler.assume_constant_result`` sets only this attribute.
    """
    f._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return f


def as_constant(number: R) -> R:
    """A number; torch.compile with dynamic sizes makes a constant of it, as of everything that is hashed."""
    (constant,) = {number}
    return constant


def power_of_two(size: int) -> int:
    """The smallest power of two that is not below this size.

    By comparisons, of which torch.compile makes conditions on a size that it leaves open: the compiled code serves every
    size with the same power.
    """
    power = 1
    while power < size:
        power *= 2
    return power
