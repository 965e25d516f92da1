"""Numbers in lines of text, read strictly: a word that is not a number, or is ambiguous, is a `ValueError`.

The numbers of a row are separated by commas, or if the file has none by semicolons, else by tabs, else by blanks. Decimals have a
point. A complex number is 1+2j or 1-2.5i, in parentheses or not, with one blank on both sides of the inner sign or none.
"""

from __future__ import annotations

import itertools
import math
import re

import numpy as np

from matsign._typing import NDArray as Array

_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", " ": "blanks"}
_DIGITS = r"(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|nan|inf|infinity)"
_REAL = re.compile(rf"[+-]?{_DIGITS}", re.IGNORECASE)
_IMAGINARY = re.compile(rf"([+-]?{_DIGITS})[ij]", re.IGNORECASE)
_COMPLEX = re.compile(rf"([+-]?{_DIGITS})( ?)([+-])\2({_DIGITS})[ij]", re.IGNORECASE)


def matrix(text: str) -> Array:
    """The rows of numbers in a text; # begins a comment, and empty lines are ignored."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    kept = [(k, line) for k, line in enumerate((x.partition("#")[0] for x in lines), 1) if line.strip(" \t")]
    if not kept:
        raise ValueError("it is empty")
    present = [s for s in (",", ";", "\t") if any(s in line for _, line in kept)]
    if present[:2] == [",", ";"]:
        k, line = next((k, line) for k, line in kept if ";" in line)
        raise ValueError(
            f"line {k}: {_quote(line)}: the file has both commas and semicolons; decimals are written with a point"
        )
    separator = present[0] if present else " "
    rows: list[list[float | complex]] = []
    for k, line in kept:
        try:
            rows.append(_row(line.strip(" "), separator))
            if len(rows[-1]) != len(rows[0]):
                raise ValueError(
                    f"{_quote(line)} differs in length: {len(rows[-1])} after {len(rows[0])} in line {kept[0][0]}"
                )
        except ValueError as error:
            heading = "; a heading begins with #" if not rows and re.match(r"\W*[^\W\d_]", line) else ""
            raise ValueError(f"line {k}: {error}{heading}") from None
    return np.array(rows)


def number(word: str) -> float | complex:
    """A word as a number; unlike ``float`` this refuses 1_000, digits of other alphabets, and 1e999 as infinity."""
    if _REAL.fullmatch(word):
        return _float(word)
    bare = word[1:-1] if word[:1] == "(" and word[-1:] == ")" else word
    if match := _COMPLEX.fullmatch(bare):
        real, _, sign, imaginary = match.groups()
        return complex(_float(real), _float(sign + imaginary))
    if match := _IMAGINARY.fullmatch(bare):
        return complex(0.0, _float(match[1]))
    raise ValueError(f"{_quote(word)} is not a number")


def _float(digits: str) -> float:
    value = float(digits)
    mantissa = digits.lower().partition("e")[0]
    if math.isinf(value) and "inf" not in digits.lower():
        raise ValueError(f"{_quote(digits)} is too large for double precision")
    if value == 0 and re.search("[1-9]", mantissa):
        raise ValueError(f"{_quote(digits)} is too small for double precision")
    return value


def _row(line: str, separator: str) -> list[float | complex]:
    if separator == " ":
        return _words(re.split(" +", line))
    cells = [cell.strip(" ") for cell in line.split(separator)]
    for place, cell in enumerate(cells, 1):
        if not cell:
            raise ValueError(
                f"{_quote(line)}: cell {place} of {len(cells)} is empty, with {_NAMES[separator]} as separators"
            )
    return [_cell(cell, separator) for cell in cells]


def _cell(cell: str, separator: str) -> float | complex:
    word = cell[1:-1] if len(cell) > 2 and cell[0] == cell[-1] == '"' else cell
    try:
        return number(word)
    except ValueError as error:
        other = next((s for s in (",", "\t", " ") if s in word), None)
        if other is None or "too" in str(error):
            raise
        hint = (
            "decimals are written with a point" if other == "," else f"the file has {_NAMES[separator]} as separators"
        )
        raise ValueError(f"{error}; {hint}") from None


def _words(words: list[str]) -> list[float | complex]:
    """Numbers separated by blanks; a `ValueError` where a blank may be part of a number."""
    for before, word in itertools.pairwise(words):
        if word[0] in "+-" and _IMAGINARY.fullmatch(word) and _REAL.fullmatch(before):
            raise ValueError(
                f"{_quote(f'{before} {word}')} may be one complex number or two; write commas between numbers"
            )
        if re.fullmatch("0[0-9]+", word):
            raise ValueError(f"{_quote(f'{before} {word}')} may be one number with its digits in groups, or two")
    return [number(word) for word in words]


def _quote(text: str) -> str:
    """A text in quotes, cut where it is long."""
    text = text.strip(" ")
    return repr(text if len(text) <= 60 else text[:57] + "...")


# How many numbers follow the indices in a line of a Matrix Market file, by field.
_FIELDS = {"real": 1, "double": 1, "integer": 1, "unsigned-integer": 1, "complex": 2, "pattern": 0}
_WHOLE = re.compile("[+-]?[0-9]+")


def check_matrix_market(text: str) -> None:
    """A `ValueError` for a line with more or fewer numbers than its header says: SciPy's parser ignores the rest of a line."""
    lines = [(k, line.split()) for k, line in enumerate(text.splitlines(), 1) if line.strip()]
    header = [word.lower() for word in lines[0][1]] if lines else []
    if len(header) != 5 or header[2] not in ("array", "coordinate") or header[3] not in _FIELDS:
        return  # not a header that SciPy reads
    indices, values = 2 * (header[2] == "coordinate"), _FIELDS[header[3]]
    data = [(k, words) for k, words in lines[1:] if not words[0].startswith("%")]
    for place, (k, words) in enumerate(data):
        whole = 2 + (indices > 0) if place == 0 else indices
        count = whole if place == 0 else indices + values
        try:
            if len(words) != count:
                raise ValueError(f"{_quote(' '.join(words))} holds {len(words)} numbers where {count} belong")
            for word in words[:whole] if "integer" not in header[3] else words:
                if not _WHOLE.fullmatch(word):
                    raise ValueError(f"{_quote(word)} is not a whole number")
            for word in words[whole:]:
                number(word)
        except ValueError as error:
            raise ValueError(f"line {k}: {error}") from None
