"""Steps along the Stiefel manifold: gap and time beside the fixed-point iteration of Su (2025b), by SciPy's Lyapunov solver.

Run it by `python benchmarks/manifold_steps.py`; the gaps of both are relative to the best known value of the dual.
"""

from time import perf_counter

import numpy as np
import scipy.linalg as sl
from arguments import parser

from matsign import stiefel_step

CASES = [(50, 20, 20), (100, 20, 20), (5, 4, 4), (20, 10, 3), (65, 64, 64), (256, 128, 128)]
STEPS = 300


def fixed_point(w, g):
    """(the feasible step, an upper bound of the maximum) after `STEPS` iterations."""
    s = w.T @ g
    x = -(s + s.T) / 2
    for _ in range(STEPS):
        _, values, vh = np.linalg.svd(g + w @ x, full_matrices=False)
        h = (vh.T * (values + 1e-15 * values[0])) @ vh
        x = sl.solve_continuous_lyapunov(h, -(h @ s + s.T @ h))
    u, values, vh = np.linalg.svd(g + w @ x, full_matrices=False)
    a = u @ vh
    product = w.T @ a
    a -= w @ (product + product.T) / 2
    return a / max(1, np.linalg.norm(a, 2)), values.sum()


def main():
    parser(__doc__).parse_args()
    rng = np.random.default_rng(0)
    for n, m, rank in CASES:
        w = np.linalg.qr(rng.standard_normal((n, m)))[0]
        g = rng.standard_normal((n, rank)) @ (np.eye(m) if rank == m else rng.standard_normal((rank, m)))
        start = perf_counter()
        ours = stiefel_step(w, g)
        middle = perf_counter()
        step, bound = fixed_point(w, g)
        end = perf_counter()
        bound = min(bound, np.sum(g * ours.step) / (1 - ours.gap))
        print(
            f"{n:4} x {m:3}, rank {rank:3}: matsign {ours.gap:.0e} {middle - start:.2f} s, "
            f"fixed point {1 - np.sum(g * step) / bound:.0e} {end - middle:.2f} s"
        )


if __name__ == "__main__":
    main()
