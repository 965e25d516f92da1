"""Models of the SLICOT collection: equations beside SciPy on the CPU, as ratios within one run, and errors of the Gramians.

    python benchmarks/models.py FOLDER [OUT.json]

FOLDER holds the models as .mat files with A, B and C. Times are measured as by `make bench`: rounds in turn, the median and the
quartiles of the ratio matsign / SciPy. Errors are against iterative refinement in extended precision.
"""

from __future__ import annotations

import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.linalg as sl
from arguments import folder, json_file, parser
from bench.case import difference
from bench.text import duration, number, spread
from bench.timing import compare

import matsign

PAUSE = 0.05
NAMES = ("solve_continuous_lyapunov", "solve_sylvester", "solve_continuous_are")


def matrices(path: Path) -> list[np.ndarray]:
    data = scipy.io.loadmat(path)
    return [np.asarray(x.toarray() if hasattr(x, "toarray") else x, float) for x in (data[k] for k in "ABC")]


def problems(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """The Gramian as a Lyapunov and as a Sylvester equation, and the regulator at unit cost of outputs and inputs."""
    q = b @ b.T
    return [(a, -q), (a, a.T, -q), (a, b, c.T @ c, np.eye(b.shape[1]))]


def refined(a: np.ndarray, q: np.ndarray, x: np.ndarray) -> np.ndarray:
    """x corrected with residuals in extended precision until it moves no more."""
    wide_a, wide_q, wide_x = (y.astype(np.longdouble) for y in (a, q, x))
    for _ in range(4):
        gap = wide_q - wide_a @ wide_x - wide_x @ wide_a.T
        wide_x = wide_x + matsign.solve_continuous_lyapunov(a, gap.astype(float), method="schur")
    return wide_x


def errors(a: np.ndarray, q: np.ndarray) -> dict[str, float]:
    """Of the Gramian."""
    ours, theirs = matsign.solve_continuous_lyapunov(a, q), sl.solve_continuous_lyapunov(a, q)
    exact = refined(a, q, ours).astype(float)
    return {"error": difference(ours, exact), "error of SciPy": difference(theirs, exact)}


def measure(path: Path) -> list[dict[str, Any]]:
    rows = []
    for name, arguments in zip(NAMES, problems(*matrices(path)), strict=True):
        found = compare(*(partial(getattr(library, name), *arguments) for library in (matsign, sl)), 2.0, PAUSE)
        row = {"model": path.stem, "n": len(arguments[0]), "function": name, **found._asdict()}
        if name == NAMES[0]:
            row |= errors(*arguments)
        rows.append(row)
        told = "".join(f"  {key} {row[key]:.0e}" for key in ("error", "error of SciPy") if key in row)
        ratio = f"{number(found.ratio[1])} ({spread(list(found.ratio))})"
        print(
            f"{path.stem:12} {row['n']:5}  {name:26} {duration(found.ours)} / {duration(found.theirs)} = {ratio}{told}",
            flush=True,
        )
    return rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("models", type=folder, metavar="FOLDER", help="models as .mat files")
    options.add_argument("out", nargs="?", type=json_file, metavar="OUT.json", help="where the figures go")
    chosen = options.parse_args()
    paths = sorted(chosen.models.glob("*.mat"))
    if not paths:
        options.error(f"there is no .mat file in {chosen.models}")
    with warnings.catch_warnings(action="ignore"):
        rows = [row for path in paths for row in measure(path)]
    if chosen.out:
        chosen.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
