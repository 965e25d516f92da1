"""The file of figures. A run adds one row after the other; a later run continues with what is missing.

The file is replaced as a whole by a complete new one, so that a run that is killed at any moment leaves all rows it had.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

FORMAT = "matsign bench 1"
Row = dict[str, Any]
TEXTS = ("key", "group", "name", "size", "peer", "call")


class UnusableFileError(Exception):
    """The file cannot be continued; the text says why and what to do."""


class Figures:
    """The figures of one machine: its description, and a row for each case and size."""

    def __init__(self, path: Path, machine: dict[str, Any], about: str, rows: list[Row]) -> None:
        self.path, self.machine, self.about = path, machine, about
        self.rows = {row["key"]: row for row in rows}
        self.left_out: list[dict[str, Any]] = []
        self.date = ""

    def has(self, key: str, seconds: float) -> bool:
        """Whether there are times from at least as long a measurement; what failed is tried again."""
        row = self.rows.get(key)
        return row is not None and "ratio" in row and row["seconds"] >= seconds

    def add(self, row: Row) -> None:
        self.rows[row["key"]] = row
        self.date = datetime.date.today().isoformat()
        self.save()

    def save(self) -> None:
        content = {
            "format": FORMAT,
            "about": self.about,
            "date": self.date,
            "machine": self.machine,
            "left_out": self.left_out,
            "rows": list(self.rows.values()),
        }
        replace(self.path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read(path: Path) -> Figures:
    """The figures in a file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnusableFileError(f"{path} cannot be read ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UnusableFileError(f"{path} is not a file of figures of this program")
    try:
        figures = Figures(path, _machine(content["machine"]), str(content["about"]), [_row(x) for x in content["rows"]])
        figures.left_out, figures.date = [dict(x) for x in content["left_out"]], str(content["date"])
    except (KeyError, TypeError, ValueError) as error:
        raise UnusableFileError(f"{path} has parts that this program does not write ({error!r})") from error
    return figures


def _machine(content: Any) -> dict[str, Any]:
    for name in ("versions", "blas", "threads", "settings"):
        dict(content[name])
    return dict(content)


def _row(content: Any) -> Row:
    """A row, if it has a failure or times, and the right types."""
    row = dict(content)
    numbers = [row["seconds"], row.get("other_load") or 0.0]
    if "failure" not in row:
        lower, middle, upper = row["ratio"]
        numbers += [row["ours"], row["theirs"], row["rounds"], middle, *(x for x in (lower, upper) if x is not None)]
    if not all(isinstance(row[name], str) for name in TEXTS) or not all(0 <= x < float("inf") for x in numbers):
        raise ValueError(f"row {row['key']}")
    return row


def open_figures(path: Path, machine: dict[str, Any], about: str | None, fresh: bool = False) -> Figures:
    """The figures to continue, or none. Those of another machine, version or number of threads are refused."""
    if path.exists() and fresh:
        os.replace(path, path.with_name(path.name + ".old"))
    if not path.exists():
        return Figures(path, machine, about or "", [])
    try:
        figures = read(path)
    except UnusableFileError as error:
        raise UnusableFileError(f"{error}; --fresh sets it aside and measures again") from error
    different = changes(figures.machine, machine)
    if different:
        raise UnusableFileError(
            f"{path} has figures made otherwise: {'; '.join(different)}. --fresh sets it aside, --out takes another file"
        )
    if about is not None:
        figures.about = about
    return figures


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line for each entry that differs between two descriptions."""
    lines = []
    for name in dict.fromkeys((*before, *now)):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += [f"{name} {line}" for line in changes(old, new)]
        elif old != new:
            lines.append(f"{name}: {old} in the file, {new} now")
    return lines


def others(folder: Path, path: Path) -> tuple[list[Figures], list[str]]:
    """The figures of other machines in a folder, and a line for each file of figures that cannot be read."""
    found, complaints = [], []
    for file in sorted(folder.glob("*.json")):
        if file.resolve() == path.resolve() or FORMAT not in file.read_text(encoding="utf-8", errors="replace"):
            continue
        try:
            found.append(read(file))
        except UnusableFileError as error:
            complaints.append(str(error))
    return found, complaints


def replace(path: Path, text: str) -> None:
    """Write a file so that at every moment the old or the new one is there, whole."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


@contextlib.contextmanager
def only_run(path: Path) -> Iterator[None]:
    """Two runs would spoil each other's times, and each would drop the other's rows."""
    if fcntl is None:
        yield
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(folder)
        raise UnusableFileError(f"another run writes to {path.parent}: wait for its end") from None
    try:
        yield
    finally:
        os.close(folder)
