"""What is measured: each module has the cases of a group in `CASES`. To add one, copy one.

A case has a size for each extent of a run: quick, usual, long. A run with a longer extent has the sizes of the shorter ones, too.
"""

from __future__ import annotations

import importlib
from functools import cache

from bench.case import Case, Size


def cases_of(group: str) -> list[Case]:
    cases: list[Case] = _module(group).CASES
    return cases


@cache
def _module(group: str):  # type: ignore[no-untyped-def]
    return importlib.import_module(f"bench.cases.{group}")


def sizes(quick: tuple = (), usual: tuple = (), long: tuple = ()) -> dict[str, tuple[Size, ...]]:  # type: ignore[type-arg]
    """Numbers, or tuples of numbers."""
    given = {"quick": quick, "usual": usual, "long": long}
    return {name: tuple(x if isinstance(x, tuple) else (x,) for x in found) for name, found in given.items()}
