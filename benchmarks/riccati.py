"""CAREX and DAREX, case by case: SciPy, SLICOT and matsign beside solutions in 400 bits.

    python benchmarks/riccati.py [docs/measurements/riccati.md]    # replaces the tables of the page

SLICOT's methods come through slycot (QZ on the scaled extended pencil, with refinement, SG02AD) and ctrlsys (Schur vectors,
SB02RD, and the sign of the Hamiltonian matrix, SB02PD), where these are installed.
"""

import sys
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import scipy
import scipy.linalg as sl
from arguments import page, parser

import matsign

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import carex
import darex

try:
    import slycot
except ImportError:
    slycot = None
try:
    import ctrlsys
except ImportError:
    ctrlsys = None

TITLE = "## The tables"
NO_ANSWER = (np.nan, np.inf, False)


def by_scipy(case):
    return (sl.solve_discrete_are if case.discrete else sl.solve_continuous_are)(*case.plant)


def by_qz(case):
    """SLICOT's SG02AD."""
    n, m = case.b.shape
    cross = np.zeros((n, m)) if case.s is None else case.s
    options = ("D" if case.discrete else "C", "B", "N", "U", "Z" if case.s is None else "N", "G", "S", "R")
    return slycot.sg02ad(*options, n, m, n, case.a, np.eye(n), case.b, case.q, case.r, cross)[1]


def standard(case):
    """(a, g, q) in Fortran's order, for the methods that want b r⁻¹ bᵀ."""
    if case.s is not None:
        raise ValueError("no cross term")
    g = case.b @ np.linalg.solve(case.r, case.b.T)
    return tuple(np.asfortranarray(x) for x in (case.a, (g + g.T) / 2, case.q))


def by_schur(case):
    """SLICOT's SB02RD."""
    a, g, q = standard(case)
    n = len(a)
    none = np.zeros((n, n), order="F")
    kind = ("D", "I") if case.discrete else ("C", "D")  # in discrete time the inverse of the symplectic matrix
    options = ("X", *kind, "N", "U", "G", "S", "N", "O")
    x, *_, info = ctrlsys.sb02rd(*options, a, q, g, none, none.copy("F"), none.copy("F"))
    return x if info == 0 else np.full((n, n), np.nan)


def by_sign(case):
    """SLICOT's SB02PD, for continuous time."""
    if case.discrete:
        raise ValueError("continuous time only")
    a, g, q = standard(case)
    found = ctrlsys.sb02pd(a, g, q)
    return found[0] if found[-1] in (0, 2) else np.full(a.shape, np.nan)


def judged(case, solve):
    """(residual, error, whether the closed loop is stable)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            x = solve(case)
            if not np.isfinite(x).all():
                return NO_ANSWER
            return case.residual(x), case.error(x), case.stable(x)
        except Exception as failure:  # what the peers raise is their own
            print(f"{case.name}: {solve.__name__}: {str(failure)[:90]}", file=sys.stderr)
            return NO_ANSWER


def by_us(case):
    solve = matsign.solve_discrete_are if case.discrete else matsign.solve_continuous_are
    x, certificate = matsign.certify(solve)(*case.plant)
    return (case.residual(x), case.error(x), case.stable(x)), certificate


def cell(found, k):
    """The residual (k = 0) or the error (k = 1); † where the closed loop is not stable."""
    return power(found[k]) + ("" if found[2] else " †") if np.isfinite(found[1]) else "–"


def power(x):
    return "0" if x < 1e-17 else f"{x:.0e}".replace("e-0", "e-")


def table(cases, peers):
    """A summary, the residuals of all cases, and their errors."""
    names, results, estimates = [*peers, "matsign"], [], []
    for case in cases:
        ours, certificate = by_us(case)
        results.append([*(NO_ANSWER if solve is None else judged(case, solve) for solve in peers.values()), ours])
        estimates.append(power(certificate.forward_error) + (", boundary" if certificate.boundary else ""))
        print(case.name, *(cell(found, 1) for found in results[-1]), file=sys.stderr, flush=True)

    def lines(k, more):
        heads = ["case", "n", *names, *more]
        yield "| " + " | ".join(heads) + " |"
        yield "|---" * len(heads) + "|"
        for case, row, estimate in zip(cases, results, estimates, strict=True):
            cells = [case.name, str(len(case.a)), *(cell(found, k) for found in row), *([estimate] if more else [])]
            yield "| " + " | ".join(cells) + " |"

    residuals, errors = "\n".join(lines(0, [])), "\n".join(lines(1, ["estimated"]))
    return f"{summary(names, results)}\n\nRelative residuals:\n\n{residuals}\n\nRelative errors:\n\n{errors}"


def summary(names, results):
    """How many cases each solves well, and how far off it is in the worst."""
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    best = [min(found[1] for found in row) for row in results]

    def line(title, of):
        lines.append(f"| {title} | " + " | ".join(of([row[k] for row in results]) for k in range(len(names))) + " |")

    line(f"answers, of {len(results)}", lambda column: str(sum(np.isfinite(found[1]) for found in column)))
    line("residual at most 1e-13", lambda column: str(sum(found[0] <= 1e-13 for found in column)))
    line(
        "largest residual",
        lambda column: power(max((found[0] for found in column if np.isfinite(found[1])), default=0.0)),
    )
    line(
        "error at most 1e-14 or ten times the best",
        lambda column: str(sum(found[1] <= max(1e-14, 10 * least) for found, least in zip(column, best, strict=True))),
    )
    return "\n".join(lines)


def main():
    options = parser(__doc__)
    options.add_argument("page", nargs="?", type=page, metavar="PAGE.md", help="the page whose tables are replaced")
    chosen = options.parse_args()
    continuous = {
        "SciPy": by_scipy,
        "slycot, QZ": by_qz if slycot else None,
        "ctrlsys, Schur": by_schur if ctrlsys else None,
        "ctrlsys, sign": by_sign if ctrlsys else None,
    }
    discrete = {name: solve for name, solve in continuous.items() if solve is not by_sign}
    versions = [f"NumPy {np.__version__}", f"SciPy {scipy.__version__}"]
    versions += [
        f"{name} {metadata.version(name)}" for name, found in (("slycot", slycot), ("ctrlsys", ctrlsys)) if found
    ]
    parts = [TITLE, ", ".join(versions) + "."]
    parts += ["### Continuous time", table(list(carex.cases()), continuous)]
    parts += ["### Discrete time", table(list(darex.cases()), discrete)]
    text = "\n\n".join(parts) + "\n"
    if chosen.page:
        chosen.page.write_text(chosen.page.read_text().partition(TITLE)[0] + text)
    else:
        print(text)


if __name__ == "__main__":
    main()
