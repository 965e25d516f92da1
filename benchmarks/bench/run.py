"""A run: each case is checked, measured and stored; then the page is written."""

from __future__ import annotations

import argparse
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench import machine
from bench.case import Task, tasks_of
from bench.cases import cases_of
from bench.page import write_page
from bench.store import Figures, Row, UnusableFileError, only_run, open_figures, others
from bench.text import disturbed, measured, missing_peers, words_of
from bench.timing import compare

# The threads of OpenBLAS keep their processors busy for about 30 ms after a call.
PAUSE = 0.05
STOPPED = 130
# The figures of other machines, a file for each.
RESULTS = Path(__file__).parents[1] / "results"


def run(options: argparse.Namespace) -> int:
    """The exit code: 1 if an answer was wrong or missing, 2 if the file cannot be continued, 130 if the run was stopped."""
    console = Console(highlight=False, soft_wrap=True)
    tasks = [task for name in options.groups for task in tasks_of(name, cases_of(name), options.extent)]
    if options.list:
        console.print(listing(tasks), markup=False)
        return 0
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with only_run(options.out):
            here = machine.describe(options.threads, options.processors)
            figures = open_figures(options.out, here, options.about, options.fresh)
            with warnings.catch_warnings(action="ignore"):
                return measure_all(options, figures, tasks, console)
    except UnusableFileError as error:
        print(f"bench: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"bench: error: the figures cannot be written ({error}); earlier ones are as they were", file=sys.stderr)
        return 2


def measure_all(options: argparse.Namespace, figures: Figures, tasks: list[Task], console: Console) -> int:
    if "torch" in sys.modules and options.threads:
        sys.modules["torch"].set_num_threads(options.threads)
    present = [task for task in tasks if task.case.peer.package]
    others_left_out = [entry for entry in figures.left_out if entry["group"] not in options.groups]
    figures.left_out = [*others_left_out, *missing_peers(tasks)]
    figures.save()
    todo = [task for task in present if not figures.has(task.key, options.seconds)]
    if options.disturbed:
        todo += [task for task in present if task not in todo and disturbed(figures.rows[task.key])]
    if len(todo) < len(present):
        console.print(
            f"{len(present) - len(todo)} of {len(present)} are in {figures.path}; --fresh measures them again"
        )
    pause = 0.0 if {figures.machine["threads"][x] for x in ("numpy", "scipy")} == {1} else PAUSE
    stopped = False
    with progress_bar(console) as progress:
        shown = progress.add_task("", total=len(todo))
        try:
            for task in todo:
                progress.update(shown, description=f"{task.group}: {task.case.name}, {task.size_name}")
                figures.add(row_of(task, options.seconds, pause))
                progress.console.print(measured(figures.rows[task.key]), markup=False)
                progress.advance(shown)
        except KeyboardInterrupt:
            stopped = True
    return finish(figures, present, stopped, console)


def progress_bar(console: Console) -> Progress:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        "left",
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)


def row_of(task: Task, seconds: float, pause: float) -> Row:
    """What is stored of a case: its times, or why it has none."""
    case = task.case
    row: Row = {
        "key": task.key, "group": task.group, "name": case.name, "size": task.size_name, "peer": case.peer.name,
        "package": case.peer.package, "call": case.call, "seconds": seconds,
    }  # fmt: skip
    load = machine.OtherLoad()
    try:
        row |= measure(task, seconds, pause)
    except Exception as error:  # of any library; the other cases are measured all the same
        row["failure"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
    return row | {"other_load": load.mean()}


def measure(task: Task, seconds: float, pause: float) -> dict[str, Any]:
    """Both answers are compared first; without agreement there are no times."""
    case = task.case
    arguments = case.setup(np.random.default_rng(0), *task.size)
    ours, theirs = partial(case.ours, *arguments), partial(case.theirs, *arguments)
    distance, limit = case.check(ours(), theirs(), arguments)
    checked = {"distance": finite(distance), "limit": finite(limit), "distance_of": case.distance}
    if not distance <= limit:
        return checked | {"failure": f"the answers disagree: {distance:.1e}, allowed {limit:.1e} ({case.distance})"}
    found = compare(ours, theirs, seconds, pause)
    return checked | {"ours": found.ours, "theirs": found.theirs, "ratio": list(found.ratio), "rounds": found.rounds}


def finite(x: float) -> float | None:
    return x if np.isfinite(x) else None


def finish(figures: Figures, present: list[Task], stopped: bool, console: Console) -> int:
    beside, complaints = others(RESULTS, figures.path)
    page = figures.path.with_suffix(".html")
    write_page(page, figures, beside)
    for line in (*complaints, *words_of(figures)):
        console.print(line, markup=False)
    console.print(f"figures: {figures.path}\npage: {page}", markup=False)
    if stopped:
        done = sum(task.key in figures.rows for task in present)
        console.print(f"stopped after {done} of {len(present)}; the same command continues", markup=False)
        return STOPPED
    failed = [row for row in figures.rows.values() if "failure" in row]
    if failed:
        console.print(f"{len(failed)} without times, see above and the page", markup=False)
    return 1 if failed else 0


def listing(tasks: list[Task]) -> str:
    """A line for each case: its sizes, and the library beside it."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for task in tasks:
        peer = task.case.peer
        note = f"{peer.name} {task.case.call}" + (
            "" if peer.package else f", not installed ({' or '.join(peer.packages)})"
        )
        lines.setdefault((task.group, task.case.name, note), []).append(task.size_name)
    text, last = [], ""
    for (group, name, note), sizes in lines.items():
        if group != last:
            text.append(group)
            last = group
        text.append(f"  {name}: {'; '.join(sizes)}  [{note}]")
    return "\n".join([*text, f"{len(tasks)} measurements"])
