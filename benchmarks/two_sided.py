"""Sylvester equations with products on both sides of x, beside SciPy's shortest route on the CPU, as ratios within one run.

python benchmarks/two_sided.py [OUT.json] [--quick]
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg as sl
from arguments import json_file, parser
from speed import gaussian, ours_and_theirs, report

import matsign

Rows = list[dict[str, Any]]


def by_cayley(a: np.ndarray, b: np.ndarray, q: np.ndarray) -> np.ndarray:
    """a x b - x + q = 0 by SciPy: u x + x b v = -u q v with u = (a - I)⁻¹ and v = (b - I)⁻¹, with Schur forms and trsyl."""
    u, v = np.linalg.inv(a - np.eye(len(a))), np.linalg.inv(b - np.eye(len(b)))
    return np.asarray(sl.solve_sylvester(u, b @ v, -u @ q @ v))


def by_inverses(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, q: np.ndarray) -> np.ndarray:
    """a x b + c x d = q by SciPy: (c⁻¹ a) x + x (d b⁻¹) = c⁻¹ q b⁻¹."""
    u, v = np.linalg.inv(c), np.linalg.inv(b)
    return np.asarray(sl.solve_sylvester(u @ a, d @ v, u @ q @ v))


def by_elimination(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, e: np.ndarray, f: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """a x - y b = c, d x - y e = f by SciPy: y = (a x - c) b⁻¹, then x by `by_inverses`."""
    inverse = np.linalg.inv(b)
    x = by_inverses(d, np.eye(len(b)), a, -inverse @ e, f - c @ inverse @ e)
    return x, (a @ x - c) @ inverse


def compare(rows: Rows, name: str, ours: Callable[..., Any], theirs: Callable[..., Any], *matrices: np.ndarray) -> None:
    report(rows, name, str(len(matrices[0])), ours_and_theirs(lambda: ours(*matrices), lambda: theirs(*matrices)))


def with_radius(a: np.ndarray, radius: float) -> np.ndarray:
    return a * (radius / abs(np.linalg.eigvals(a)).max())


def single(rows: Rows, n: int) -> None:
    a, b, q = (gaussian(n, n) for _ in range(3))
    for radius in (0.9, 0.99):
        compare(
            rows,
            f"discrete, radii {radius}",
            matsign.solve_discrete_sylvester,
            by_cayley,
            *(with_radius(a, radius), with_radius(b, radius), q),
        )
    compare(rows, "discrete, mixed", matsign.solve_discrete_sylvester, by_cayley, a, b, q)
    c, d = gaussian(n, n), gaussian(n, n)
    compare(rows, "generalized, mixed", matsign.solve_generalized_sylvester, by_inverses, a, b, c, d, q)
    a, b, c, d = (x / np.sqrt(n) + 2.5 * np.eye(n) for x in (a, b, c, d))
    compare(rows, "generalized, separable", matsign.solve_generalized_sylvester, by_inverses, a, b, c, d, q)
    compare(rows, "pair, separable", matsign.solve_sylvester_pair, by_elimination, a, -b, q, c, d, gaussian(n, n))


def main() -> None:
    warnings.simplefilter("ignore")
    options = parser(__doc__)
    options.add_argument("out", nargs="?", type=json_file, metavar="OUT.json", help="where the figures go")
    options.add_argument("--quick", action="store_true", help="small sizes")
    chosen = options.parse_args()
    rows: Rows = []
    print(f"{'equation':28} {'size':>12} {'matsign':>15} {'SciPy':>15} {'ratio':>8}")
    for n in (8, 16, 32) if chosen.quick else (8, 16, 32, 64, 128, 256, 512):
        single(rows, n)
    if chosen.out:
        chosen.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
