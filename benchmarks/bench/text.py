"""Figures in words, for the terminal and the page."""

from __future__ import annotations

from typing import Any

from bench.case import Task
from bench.store import Figures, Row

# Processors kept busy by other programs from which on a measurement is called disturbed.
DISTURBED = 0.25
UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def duration(seconds: float) -> str:
    unit, name = next((x for x in UNITS if seconds >= x[0]), UNITS[-1])
    return f"{number(seconds / unit)}\N{NO-BREAK SPACE}{name}"


def number(x: float) -> str:
    """Two digits, three where the first is 1."""
    text = f"{x:#.{3 if f'{x:e}'[0] == '1' else 2}g}"
    return f"{x:.0f}" if "e+" in text else text.rstrip(".")


def spread(ratio: list[float | None]) -> str:
    lower, _, upper = ratio
    return "" if lower is None or upper is None else f"{number(lower)}–{number(upper)}"


def disturbed(row: Row) -> bool:
    return (row.get("other_load") or 0.0) > DISTURBED


def measured(row: Row) -> str:
    """A line of the terminal."""
    what = f"{row['name']}, {row['size']}"
    peer = f"{row['peer']} {row['call']}"
    if "failure" in row:
        return f"{what}  [{peer}]  {row['failure']}"
    times = f"{duration(row['ours'])} / {duration(row['theirs'])} = {number(row['ratio'][1])} ({spread(row['ratio'])})"
    return f"{what}  {times}  [{peer}]" + (f"  other load {row['other_load']:.1f}" if disturbed(row) else "")


def missing_peers(tasks: list[Task]) -> list[dict[str, Any]]:
    """The libraries that are not installed, and how many measurements of each group they would have."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for task in tasks:
        peer = task.case.peer
        if not peer.package:
            entry = {"group": task.group, "peer": peer.name, "packages": list(peer.packages), "count": 0}
            found.setdefault((task.group, peer.name), entry)["count"] += 1
    return list(found.values())


def missing(entries: list[dict[str, Any]]) -> list[str]:
    """A line for each library."""
    lines = []
    for name in dict.fromkeys(entry["peer"] for entry in entries):
        of_peer = [entry for entry in entries if entry["peer"] == name]
        count = sum(entry["count"] for entry in of_peer)
        packages = " or ".join(of_peer[0]["packages"])
        lines.append(f"{name} is not installed ({packages}): {count} measurement{'s' * (count > 1)} left out")
    return lines


def words_of(figures: Figures) -> list[str]:
    """What a reader must know about the figures."""
    lines = missing(figures.left_out)
    threads = figures.machine["threads"]
    if {threads.get("numpy"), threads.get("scipy")} != {1}:
        lines.append(
            "with several threads, functions of SciPy that call NumPy, too (polar, signm), are slowed down by having two "
            "OpenBLAS libraries; --threads 1 measures without this"
        )
    count = sum(disturbed(row) for row in figures.rows.values())
    if count:
        lines.append(
            f"{count} of {len(figures.rows)} were measured while other programs kept more than {DISTURBED:g} processors busy: "
            "measure these again on a quiet machine (option --disturbed)"
        )
    return lines
