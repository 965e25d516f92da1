"""Sylvester and Riccati equations beside SciPy on the CPU, as ratios within one run.

    python benchmarks/equations.py [OUT.json] [--models FOLDER] [--quick]

FOLDER holds models of the SLICOT collection as .mat files with A, B and C. Times are the best of several. Lyapunov and Stein
equations have a script of their own, lyapunov.py.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.linalg as sl
from arguments import folder, json_file, parser
from speed import best_time, gaussian, ours_and_theirs, report

import matsign

Rows = list[dict[str, Any]]
RICCATI = {
    "solve_continuous_are": (matsign.solve_continuous_are, sl.solve_continuous_are),
    "solve_discrete_are": (matsign.solve_discrete_are, sl.solve_discrete_are),
}


def regulator(n: int, m: int) -> tuple[np.ndarray, ...]:
    """A Gaussian plant, every state and input at the same cost."""
    return gaussian(n, n), gaussian(n, m), np.eye(n), np.eye(m)


def sylvester(rows: Rows, n: int) -> None:
    q, left, right = gaussian(n, n), gaussian(n, n), gaussian(n, n)
    shift = 2.5 * np.eye(n)
    for name, a, b in (
        ("solve_sylvester, separable", left / np.sqrt(n) + shift, right / np.sqrt(n) + shift),
        ("solve_sylvester, general", left, right),
    ):
        times = ours_and_theirs(
            lambda a=a, b=b: matsign.solve_sylvester(a, b, q), lambda a=a, b=b: sl.solve_sylvester(a, b, q)
        )
        report(rows, name, str(n), times)


def riccati(rows: Rows, n: int) -> None:
    arguments = regulator(n, n // 2)
    for name, (ours, theirs) in RICCATI.items():
        report(rows, name, str(n), ours_and_theirs(lambda f=ours: f(*arguments), lambda g=theirs: g(*arguments)))


def model(rows: Rows, path: Path) -> None:
    """The regulator of a model at unit cost of its outputs and inputs, and the Sylvester equation of its Gramian."""
    data = scipy.io.loadmat(path)
    a, b, c = (np.asarray(x.todense() if hasattr(x, "todense") else x, float) for x in (data[k] for k in "ABC"))
    q, size = c.T @ c, f"{path.stem}, {len(a)}"
    steering = b @ b.T
    report(
        rows,
        "solve_sylvester",
        size,
        ours_and_theirs(
            lambda: matsign.solve_sylvester(a, a.T, steering), lambda: sl.solve_sylvester(a, a.T, steering)
        ),
    )
    r = np.eye(b.shape[1])
    ours, theirs = RICCATI["solve_continuous_are"]
    report(rows, "solve_continuous_are", size, ours_and_theirs(lambda: ours(a, b, q, r), lambda: theirs(a, b, q, r)))


def batch(rows: Rows, n: int, count: int) -> None:
    """A stack against a loop over SciPy, of which 200 are timed; the cost of a member should not depend on the count."""
    a, b = gaussian(count, n, n), gaussian(count, n, n // 2)
    q, r = (np.broadcast_to(np.eye(k), (count, k, k)) for k in (n, n // 2))
    right, other = (gaussian(count, n, n) / np.sqrt(n) + 2.5 * np.eye(n) for _ in range(2))
    problems = {name: (*f, (a, b, q, r)) for name, f in RICCATI.items()}
    problems["solve_sylvester, separable"] = (matsign.solve_sylvester, sl.solve_sylvester, (right, other, a))
    for name, problem in problems.items():
        report(rows, name, f"{count} x {n}", stack_and_loop(*problem), count / min(count, 200))
        print(f"{'':28} {rows[-1]['ours'] / count * 1e6:.1f} us a member")


def stack_and_loop(ours: Any, theirs: Any, stacks: tuple[np.ndarray, ...]) -> tuple[float, float]:
    part = range(min(len(stacks[0]), 200))
    return best_time(lambda: ours(*stacks), 2.0), best_time(
        lambda: [theirs(*(x[i] for x in stacks)) for i in part], 1.0
    )


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
    for count in (100, 1000) if quick else (100, 1000, 10_000, 100_000):
        batch(rows, 8, count)
    for n in (8, 64) if quick else (8, 64, 256, 512, 1024):
        sylvester(rows, n)
        if n <= 512:
            riccati(rows, n)
    for path in sorted(chosen.models.glob("*.mat")) if chosen.models else ():
        model(rows, path)
    if chosen.out:
        chosen.out.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
