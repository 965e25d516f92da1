"""The table that says which parameter goes to which algorithm, and why."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from matsign.core.options import short_repr

ALGORITHMS = ("muon", "adamw")


class Assignment(NamedTuple):
    """One line of the table: a parameter and its algorithm."""

    name: str
    shape: tuple[int, ...]
    algorithm: str
    reason: str
    options: Mapping[str, Any]


def table(assignments: Sequence[Assignment]) -> str:
    """One line for each parameter, and the totals."""
    rows = [
        (row.algorithm, row.name, "×".join(map(str, row.shape)) or "()", row.reason, _name_list(row.options))
        for row in assignments
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    lines = ["  ".join(text.ljust(n) for text, n in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *_totals(assignments)])


def _name_list(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={short_repr(value)}" for key, value in options.items())


def _totals(assignments: Sequence[Assignment]) -> Iterator[str]:
    for algorithm in (*ALGORITHMS, "frozen"):
        sizes = [math.prod(row.shape) for row in assignments if row.algorithm == algorithm]
        if sizes:
            yield f"{algorithm}: {len(sizes)} parameter{'s' * (len(sizes) != 1)}, {sum(sizes):,} numbers"
