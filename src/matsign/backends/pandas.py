"""Frames of pandas: the function is called on their values, and a result gets the labels of its rows and columns.

The letters of the shapes tell which axes belong together: their labels must be equal, in the same order. A frame is returned for
a matrix whose rows and columns both have labels, an array for all else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from matsign._typing import Array
from matsign.backends.adapters import BatchCall, leaves, with_leaves


class Axis(NamedTuple):
    """The labels of an axis of an argument, with the letter of its size; `place` is 0 for rows and 1 for columns."""

    name: str
    place: int
    letter: str
    labels: pd.Index

    @property
    def is_plain(self) -> bool:
        """Whether the labels are only positions, those of a frame that was given none."""
        return self.labels.equals(pd.RangeIndex(len(self.labels)))

    def __str__(self) -> str:
        return f"{('the rows', 'the columns')[self.place]} of {self.name} {self.labels.tolist()}"


def apply(call: BatchCall) -> Any:
    """The result of a call, with frames in place of plain arrays."""
    arguments = list(call.arguments)
    axes: list[Axis] = []
    for place, x in enumerate(arguments):
        if isinstance(x, (pd.DataFrame, pd.Series)):
            axes += _axes(call, place, x)
            arguments[place] = x.to_numpy()
        elif x is not None:
            call.check_library(place, "pandas")
    _check(call.name, axes)
    value = call.function(*arguments)
    results = zip(leaves(value), call.results, strict=True)
    return with_leaves(value, iter([_with_labels(x, letters, axes) for x, letters in results]))


def _axes(call: BatchCall, place: int, x: Any) -> Iterator[Axis]:
    name, letters = call.names[place], call.letters[place]
    if isinstance(x, pd.DataFrame):
        first = 2 - len(letters)  # 1 for a batch of vectors
        for k in range(first, 2):
            yield Axis(name, k, letters[k - first], x.axes[k])
    elif letters:
        k = int(call.roles[place] == "row")
        yield Axis(name, k, letters[k], x.index)


def _check(function: str, axes: list[Axis]) -> None:
    """Raise if axes that belong together have different labels.

    The rows and columns of one matrix may have names of their own, such as those of states and of their derivatives, but not the
    same ones in another order.
    """
    for k, axis in enumerate(axes):
        others = [x for x in axes[:k] if x.letter == axis.letter and not x.is_plain]
        same_matrix = [x for x in others if x.name == axis.name and set(x.labels) != set(axis.labels)]
        if axis.is_plain or not others or same_matrix or any(x.labels.equals(axis.labels) for x in others):
            continue
        raise ValueError(
            f"{function}: {axis} have other labels than {others[0]}; bring them into one order, as by reindex, or pass its "
            "to_numpy()"
        )


def _with_labels(x: Any, letters: tuple[str, ...], axes: list[Axis]) -> Array:
    """A matrix as a frame with the labels of its axes, if both have some; anything else unchanged."""
    if len(letters) != 2 or x.ndim != 2:
        return x
    rows, columns = (_labels(axes, place, letter) for place, letter in enumerate(letters))
    return x if rows is None or columns is None else pd.DataFrame(x, index=rows, columns=columns)


def _labels(axes: list[Axis], place: int, letter: str) -> Any:
    """The labels for a letter: rather those of rows for rows, and rather names than positions."""
    found = [x for x in axes if x.letter == letter]
    return min(found, key=lambda x: (x.is_plain, x.place != place)).labels if found else None
