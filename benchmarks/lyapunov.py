"""Lyapunov and Stein equations and factors of Gramians beside SciPy on the CPU, as ratios within one run.

    python benchmarks/lyapunov.py [OUT.json] [--models FOLDER] [--quick]

FOLDER holds models of the SLICOT collection as .mat files with A, B and C. Times are the best of several; errors on the models
are of the Gramian, against iterative refinement in extended precision.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.linalg as sl
from arguments import folder, json_file, parser
from speed import best_time, gaussian, ours_and_theirs, report

import matsign

Rows = list[dict[str, Any]]


def stable(n: int, count: int | None = None) -> np.ndarray:
    shape = (n, n) if count is None else (count, n, n)
    return gaussian(*shape) / np.sqrt(n) - 2.5 * np.eye(n)


def inside(a: np.ndarray, radius: float = 0.9) -> np.ndarray:
    """`a` scaled to this spectral radius."""
    return a * (radius / np.abs(np.linalg.eigvals(a)).max(axis=-1))[..., None, None]


def single(rows: Rows, n: int) -> None:
    a, mixed, b = stable(n), gaussian(n, n), gaussian(n, 2)
    q = b @ b.T
    report(
        rows, "continuous, stable", str(n), pair(matsign.solve_continuous_lyapunov, sl.solve_continuous_lyapunov, a, -q)
    )
    report(
        rows,
        "continuous, mixed",
        str(n),
        pair(matsign.solve_continuous_lyapunov, sl.solve_continuous_lyapunov, mixed, -q),
    )
    c = inside(mixed)
    report(
        rows, "discrete, radius 0.9", str(n), pair(matsign.solve_discrete_lyapunov, sl.solve_discrete_lyapunov, c, q)
    )


def pair(ours: Callable[..., Any], theirs: Callable[..., Any], *arguments: np.ndarray) -> tuple[float, float]:
    return ours_and_theirs(lambda: ours(*arguments), lambda: theirs(*arguments))


def batch(rows: Rows, n: int, count: int) -> None:
    a, b = stable(n, count), gaussian(count, n, 2)
    q, part = b @ b.mT, range(min(count, 200))
    times = ours_and_theirs(
        lambda: matsign.solve_continuous_lyapunov(a, -q),
        lambda: [sl.solve_continuous_lyapunov(a[k], -q[k]) for k in part],
    )
    report(rows, "continuous, stable", f"{count} x {n}", times, count / len(part))
    c = a / 4
    times = ours_and_theirs(
        lambda: matsign.solve_discrete_lyapunov(c, q),
        lambda: [sl.solve_discrete_lyapunov(c[k], q[k]) for k in part],
    )
    report(rows, "discrete", f"{count} x {n}", times, count / len(part))


def per_member(rows: Rows, n: int, counts: tuple[int, ...]) -> None:
    """What one member of a batch costs, as the batch grows."""
    for count in counts:
        a, q = stable(n, count), np.broadcast_to(-np.eye(n), (count, n, n))
        cost = best_time(lambda a=a, q=q: matsign.solve_continuous_lyapunov(a, q), 1.0) / count
        rows.append({"function": "cost per member", "size": f"{count} x {n}", "ours": cost})
        print(f"{'cost per member':28} {f'{count} x {n}':>12} {cost * 1e6:12.2f} µs", flush=True)


def factor(rows: Rows, n: int) -> None:
    """Three inputs. From n = 2000 on SciPy's time is that at 1000 times the cube of the size ratio."""
    a, b = stable(n), gaussian(n, 3)
    ours = best_time(lambda: matsign.lyapunov_factor(a, b), 10.0)
    size = min(n, 1000)
    small, q = stable(size), -b[:size] @ b[:size].T
    theirs = best_time(lambda: sl.solve_continuous_lyapunov(small, q), 10.0) * (n / size) ** 3
    report(rows, "factor, 3 inputs / full x", str(n), (ours, theirs))


def refined(a: np.ndarray, q: np.ndarray, x: np.ndarray) -> np.ndarray:
    """x corrected with residuals in extended precision until it moves no more."""
    wide_a, wide_q, wide_x = (y.astype(np.longdouble) for y in (a, q, x))
    for _ in range(4):
        gap = wide_q - wide_a @ wide_x - wide_x @ wide_a.T
        wide_x = wide_x + matsign.solve_continuous_lyapunov(a, gap.astype(float), method="schur")
    return wide_x


def model(rows: Rows, path: Path) -> None:
    data = scipy.io.loadmat(path)
    a, b = ((x.toarray() if hasattr(x, "toarray") else x).astype(float) for x in (data["A"], data["B"]))
    q = -b @ b.T
    times = pair(matsign.solve_continuous_lyapunov, sl.solve_continuous_lyapunov, a, q)
    report(rows, path.stem, str(len(a)), times)
    ours, theirs = matsign.solve_continuous_lyapunov(a, q), sl.solve_continuous_lyapunov(a, q)
    exact = refined(a, q, ours)
    errors = [float(np.linalg.norm(x - exact) / np.linalg.norm(exact)) for x in (ours, theirs)]
    rows[-1] |= {"error": errors[0], "scipy error": errors[1]}
    print(f"{'  relative error':28} {'':>12} {errors[0]:15.1e} {errors[1]:15.1e}", flush=True)


def main() -> None:
    warnings.simplefilter("ignore")
    options = parser(__doc__)
    options.add_argument("out", nargs="?", type=json_file, metavar="OUT.json", help="where the figures go")
    options.add_argument("--models", type=folder, metavar="FOLDER", help="models as .mat files, measured too")
    options.add_argument("--quick", action="store_true", help="small sizes")
    chosen = options.parse_args()
    quick = chosen.quick
    rows: Rows = []
    print(f"{'equation':28} {'size':>12} {'matsign':>15} {'SciPy':>15} {'ratio':>8}")
    for n in (8, 64) if quick else (8, 32, 64, 128, 256, 512, 1024):
        single(rows, n)
    for n, count in ((8, 1000),) if quick else ((4, 10_000), (8, 10_000), (16, 2000), (32, 500)):
        batch(rows, n, count)
    per_member(rows, 8, (100, 1000) if quick else (100, 1000, 10_000, 100_000))
    for path in sorted(chosen.models.glob("*.mat")) if chosen.models else ():
        model(rows, path)
    for n in (200,) if quick else (500, 1000, 2000):
        factor(rows, n)
    if chosen.out:
        chosen.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
