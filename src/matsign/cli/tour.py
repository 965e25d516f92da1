"""``matsign tour``: run every row, show the table, write the page."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import scipy.fft
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import matsign
from matsign import backends
from matsign._typing import Array
from matsign.backends import Backend
from matsign.cli import files, flows, inputs, pictures
from matsign.cli.files import FileError
from matsign.cli.identities import rows
from matsign.cli.inputs import Inputs
from matsign.cli.judging import Verdict, judge
from matsign.cli.page import duration, page
from matsign.cli.pictures import Picture
from matsign.cli.printing import as_json as to_json
from matsign.cli.printing import print_object


def run(model: Path | None, library: str, out: Path, quick: bool, as_json: bool = False) -> bool:
    """The whole tour; True if every row holds."""
    if out.is_dir() or not out.parent.is_dir():
        raise FileError(f"{out} is a folder" if out.is_dir() else f"{out}: there is no folder {out.parent}")
    backend = _load(library)
    chosen = _from_file(model) if model else inputs.shipped_inputs(quick)
    console = Console(stderr=as_json) if Console().is_terminal else Console(stderr=as_json, width=150)
    todo, verdicts = rows(chosen), []
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*bar, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(todo) + 3)
        for row in todo:
            progress.update(task, description=escape(f"{row.identity}, {row.source.text}"[:60].ljust(60)))
            verdicts.append(judge(row, backend))
            progress.advance(task)
        progress.update(task, description="pictures".ljust(60))
        drawn = _pictures(chosen, lambda: progress.advance(task))
    title = f"matsign: tour of {model.name}" if model else "matsign: a tour of the article's identities"
    try:
        out.write_text(page(title, _setting(backend), verdicts, drawn), encoding="utf-8")
    except OSError as error:
        raise FileError(f"{out}: {error.strerror or 'cannot be written'}") from None
    passed = all(v.passed for v in verdicts)
    if as_json:
        rows_of_json = [_as_dict(v) for v in verdicts]
        print_object({"setting": _setting(backend), "page": str(out), "passed": passed, "rows": rows_of_json})
        return passed
    _report(console, _setting(backend), verdicts)
    console.print(f"page written to {out}", highlight=False, soft_wrap=True)
    return passed


def _as_dict(v: Verdict) -> dict[str, Any]:
    """A row for JSON."""
    numbers = ("residual", "residual_limit", "distance", "distance_limit", "seconds", "peer_seconds")
    text = {"place": v.row.place, "identity": v.row.identity, "input": v.row.source.text, "size": v.size}
    outcome = {"method": v.method, "trouble": v.trouble, "passed": bool(v.passed)}
    return text | outcome | {name: to_json(getattr(v, name)) for name in numbers}


def _load(library: str) -> Backend:
    """The backend; JAX in double precision unless the user's environment says otherwise."""
    os.environ.setdefault("JAX_ENABLE_X64", "1")
    try:
        return backends.load(library)
    except ImportError:
        raise FileError(f'{library} is not installed; pip install "matsign[{library}]"') from None


def _from_file(path: Path) -> Inputs:
    matrices = files.read_all(path)
    missing = [name for name in "ABC" if name not in matrices]
    if missing:
        raise FileError(f"{path} holds no {', '.join(missing)}, but {', '.join(matrices)}; a model is A, B, C")
    try:
        return inputs.from_model(
            *(np.asarray(matrices[name], dtype=np.result_type(matrices[name], float)) for name in "ABC")
        )
    except ValueError as error:
        raise FileError(f"{path}: {error}") from None


def _setting(backend: Backend) -> str:
    dtype = backend.dtype_name(backend.asarray(np.zeros(1)))
    short = " (64-bit is off: JAX_ENABLE_X64=0; judged by single precision)" if dtype == "float32" else ""
    versions = f"NumPy {np.__version__}, SciPy {scipy.__version__}, Python {platform.python_version()}"
    return f"matsign {matsign.__version__} on {backend.name} in {dtype}{short}; {versions}; {os.cpu_count()} CPUs"


def _pictures(chosen: Inputs, advance: Callable[[], None]) -> list[Picture]:
    """Eigenvalues, singular values and residuals; in double precision on NumPy, whatever the tour itself ran on."""
    steps = [np.linalg.eigvals(x) for x in flows.dense(chosen.flow).iterates]
    (m,) = chosen.gradient.arrays
    # In another basis, where zero singular values are not exact and purification has something to do.
    lift, every = flows.lift(scipy.fft.dctn(m, norm="ortho")), flows.structures(chosen)
    drawings = (
        (
            "Eigenvalues flow to ±1",
            f"The eigenvalues of a matrix of size {len(chosen.flow)} in Newton's iteration for mcsgn. Those in the right half "
            "plane (orange) converge to 1, those in the left half plane (blue) to -1. Axes are linear near the origin and "
            f"logarithmic far from it; circles mark ±1.{_outcome(steps[-1])}",
            lambda: pictures.eigenvalues(steps),
        ),
        (
            "Singular values through the schedule",
            f"The polynomial method of msign, on: {chosen.gradient.text}, cosine basis. The first steps (lifting) bring every "
            "singular value above rounding near 1. Purification then brings these to 1 and smaller ones to 0.",
            lambda: pictures.singular_values(lift),
        ),
        (
            "Residual against step",
            "Newton's iteration with scaling on five block structures. Its last steps are polynomials of degree three.",
            lambda: pictures.residuals(every),
        ),
    )
    drawn = []
    for title, caption, draw in drawings:
        drawn.append(pictures.picture(title, caption, draw))
        advance()
    return drawn


def _outcome(last: Array) -> str:
    """Empty if the eigenvalues have converged, else a sentence that they have not."""
    if np.abs(last - np.sign(last.real)).max() < 1e-2:
        return ""
    return " On this matrix the bare iteration does not arrive, and mcsgn takes Schur vectors instead."


def _report(console: Console, setting: str, verdicts: list[Verdict]) -> None:
    """Print the table and the count, rows that miss their accuracy in red."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("article", "identity, input", "size", "method"):
        table.add_column(head)
    for head in ("residual", "distance", "time", "SciPy's"):
        table.add_column(head, justify="right", no_wrap=True)
    for v in verdicts:
        identity = f"{escape(v.row.identity)}\n[dim]{escape(v.row.source.text)}[/]"
        numbers = [f"{v.residual:.1e}", f"{v.distance:.1e}", duration(v.seconds), duration(v.peer_seconds)]
        cells = [v.row.place, identity, v.size, *([escape(v.trouble)] if v.trouble else [v.method, *numbers])]
        table.add_row(*cells, style="" if v.passed else "red")
    console.print(table)
    missed = sum(not v.passed for v in verdicts)
    console.print(setting, highlight=False)
    if missed:
        console.print(f"[bold red]{missed} of {len(verdicts)} rows miss their accuracy[/]", highlight=False)
    else:
        console.print(f"[bold green]all {len(verdicts)} rows hold[/]", highlight=False)
