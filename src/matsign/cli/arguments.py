"""The matrices of a command: files, the standard input, or numbers, which are multiples of the identity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from matsign._typing import NDArray as Array
from matsign.cli import files
from matsign.cli.files import FileError
from matsign.cli.text import number
from matsign.core.options import Parameters


def protect_arguments(words: list[str]) -> list[str]:
    """The words of a command line; a blank before -2 or -.npy tells the parser that it is not an option."""
    return [f" {word}" if word.startswith("-") and _is_argument(word) else word for word in words]


def _is_argument(word: str) -> bool:
    return files.is_standard(word) or _is_number(word)


def _is_number(word: str) -> bool:
    try:
        number(word)
    except ValueError:
        return False
    return True


def check_standard_input(texts: Mapping[str, str | None]) -> None:
    """A `FileError` if several arguments need the standard input."""
    wanting = [name for name, text in texts.items() if text is not None and files.is_standard(text.strip())]
    if len(wanting) > 1:
        raise FileError(f"only one argument can be read from the standard input, not {' and '.join(wanting)}")


def read_arrays(parameters: Parameters, texts: Mapping[str, str | None]) -> dict[str, Array | None]:
    """The arrays of a function, each from a file or a number; "none" stands for a replaceable one that is left out."""
    shapes = dict(zip(parameters.arrays, parameters.shapes, strict=True))
    absent: dict[str, Array | None] = {name: None for name in parameters.replaceable if texts[name] == "none"}
    texts = {name: text for name, text in texts.items() if name not in absent}
    readers = {name: _read_vector if len(shapes[name]) == 1 else _read for name in texts}
    values = {name: readers[name](text.strip()) for name, text in texts.items() if text is not None}
    numbers = {name: x for name, x in values.items() if not isinstance(x, np.ndarray)}
    arrays = {name: x for name, x in values.items() if isinstance(x, np.ndarray)}
    sizes = _sizes_of_numbers(parameters, arrays, list(numbers))
    dtypes = [x.dtype for x in arrays.values()]
    multiples = {name: _multiple(c, sizes[name], dtypes) for name, c in numbers.items()}
    multiples |= {name: x.diagonal() for name, x in multiples.items() if len(shapes[name]) == 1}
    return absent | {name: arrays[name] if name in arrays else multiples[name] for name in values}


def read_threshold(text: str) -> Array:
    """A number, or a file with a number for each matrix, in a row or in a column."""
    return np.asarray(_read_vector(text.strip()))


def _read_vector(text: str) -> Any:
    """A number, or the numbers of a file, in a row or in a column."""
    value = _read(text)
    return value.reshape(-1) if isinstance(value, np.ndarray) and value.ndim == 2 and 1 in value.shape else value


def _read(text: str) -> Any:
    try:
        return number(text)
    except ValueError:
        return files.read(text)


def _sizes_of_numbers(parameters: Parameters, arrays: Mapping[str, Array], names: list[str]) -> dict[str, int]:
    """The size of the identity for each of these arguments, from the sizes of the others; 1 where nothing tells it."""
    shapes = dict(zip(parameters.arrays, parameters.shapes, strict=True))
    known: dict[str, int] = {}
    for name, x in arrays.items():
        sides = x.shape[x.ndim - len(shapes[name]) :]
        known |= {side: size for side, size in zip(shapes[name], sides, strict=False) if side not in known}
    sizes: dict[str, int] = {}
    while len(sizes) < len(names):
        left = [name for name in names if name not in sizes]
        name = next((x for x in left if any(side in known for side in shapes[x])), left[0])
        found = [known[side] for side in shapes[name] if side in known] or [1]
        if found[0] != found[-1]:
            raise ValueError(
                f"{name} is a matrix of {found[0]}×{found[-1]} here: a number stands for a multiple of the identity, "
                "which is square; give a file"
            )
        sizes[name] = found[0]
        known |= dict.fromkeys(shapes[name], found[0])
    return sizes


def _multiple(c: float | complex, size: int, dtypes: list[np.dtype[Any]]) -> Array:
    """c I, in the precision of the other arrays."""
    with np.errstate(over="ignore"):  # a number that float32 cannot hold becomes infinite, which the function refuses
        value = np.zeros((size, size), np.result_type(*dtypes, c))
        np.fill_diagonal(value, c)
    return value
