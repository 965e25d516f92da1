"""CTLEX and DTLEX with descriptors, case by case: SciPy, SLICOT and matsign beside solutions in 80 digits.

    python benchmarks/lyapunov.py [docs/measurements/lyapunov.md]    # replaces the tables of the page

SLICOT's Bartels-Stewart method for pencils (SG03AD) comes through slycot, where it is installed. SciPy has no function with e:
the equation is brought to standard form by the inverse of e.
"""

import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import scipy
import scipy.linalg as sl
from arguments import page, parser

import matsign

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from riccati import power

import truth
from lyapunov_collection import graded_case, triangular_case

try:
    import slycot
except ImportError:
    slycot = None

TITLE = "## The tables"


def cases(discrete):
    """(name, a, q, e) of the examples with a descriptor, the collections' own parameters first, and of ill-conditioned e."""
    for t in (10, 1, 20, 30):
        yield f"4.3, t = {t}", *triangular_case(10, t, discrete=discrete)
    for t in (1.5, 1.1, 10.0, 100.0):
        yield f"4.4, t = {t:g}", *graded_case(4, t, discrete=discrete)
    for power_of_ten in (4, 8, 12):
        yield f"κ(e) = 1e{power_of_ten}", *ill_conditioned(8, 10.0**power_of_ten, discrete)


def ill_conditioned(n, condition, discrete):
    """A stable pencil with a definite e of this condition."""
    rng = np.random.default_rng(n)
    u, v = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
    e = u @ np.diag(np.geomspace(1, 1 / condition, n)) @ u.T
    e = (e + e.T) / 2
    b = rng.standard_normal((n, 2))
    if discrete:
        return e @ v @ np.diag(np.linspace(-0.9, 0.9, n)) @ v.T, b @ b.T, e
    w = rng.standard_normal((n, n))
    return -(w @ w.T / n + np.eye(n) / 10) + (w - w.T), -b @ b.T, e


def by_inverse(a, q, e, discrete):
    inverse = np.linalg.inv(e)
    solve = sl.solve_discrete_lyapunov if discrete else sl.solve_continuous_lyapunov
    return solve(inverse @ a, inverse @ q @ inverse.T)


def by_slicot(a, q, e, discrete):
    n, none = len(a), np.zeros((len(a), len(a)))
    kind, right = ("D", -q) if discrete else ("C", q)
    found = slycot.sg03ad(kind, "B", "N", "T", "L", n, a.copy(), e.copy(), none, none.copy(), right.copy())
    return found[4] / found[5]


def by_us(a, q, e, discrete):
    return (matsign.solve_discrete_lyapunov if discrete else matsign.solve_continuous_lyapunov)(a, q, e=e, errors="nan")


def exact(a, q, e, discrete):
    if discrete:
        return truth.generalized_sylvester(e, e.T.copy(), -a, a.T.copy(), q)
    return truth.generalized_sylvester(a, e.T.copy(), e, a.T.copy(), q)


def backward_error(a, q, e, discrete, x):
    """About the relative change of a, e and q that explains the residual, which is computed in full precision."""
    exact_a, exact_q, exact_e, exact_x = (truth.exact(y) for y in (a, q, e, x))
    if discrete:
        gap = exact_a @ exact_x @ exact_a.T - exact_e @ exact_x @ exact_e.T + exact_q
        pairs = (a, a), (e, e)
    else:
        gap = exact_a @ exact_x @ exact_e.T + exact_e @ exact_x @ exact_a.T - exact_q
        pairs = (a, e), (e, a)
    size = np.linalg.norm
    return float(truth.size(gap)) / (size(q) + sum(size(left, 2) * size(right @ x) for left, right in pairs))


def table(discrete):
    solvers = {"SciPy, e⁻¹": by_inverse, **({"SLICOT": by_slicot} if slycot else {}), "matsign": by_us}
    backward_errors, errors = ([[*("case", "n"), *solvers, *more]] for more in ([], ["estimated"]))
    for name, a, q, e in cases(discrete):
        found = [solve(a, q, e, discrete) for solve in solvers.values()]
        solver = matsign.solve_discrete_lyapunov if discrete else matsign.solve_continuous_lyapunov
        certificate = matsign.certify(solver)(a, q, e=e, errors="nan")[1]
        solution = exact(a, q, e, discrete)
        backward_errors.append([name, str(len(a)), *(cell(backward_error, (a, q, e, discrete, x), x) for x in found)])
        errors.append([name, str(len(a)), *(cell(truth.error, (x, solution), x) for x in found)])
        errors[-1].append(power(float(certificate.forward_error)) if np.isfinite(found[-1]).all() else "–")
        print(*errors[-1], file=sys.stderr, flush=True)
    return f"Backward errors:\n\n{as_markdown(backward_errors)}\n\nRelative errors:\n\n{as_markdown(errors)}"


def cell(measure, arguments, x):
    return power(measure(*arguments)) if np.isfinite(x).all() else "–"


def as_markdown(rows):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def main():
    options = parser(__doc__)
    options.add_argument("page", nargs="?", type=page, metavar="PAGE.md", help="the page whose tables are replaced")
    chosen = options.parse_args()
    versions = [f"NumPy {np.__version__}", f"SciPy {scipy.__version__}"]
    versions += [f"slycot {metadata.version('slycot')}"] if slycot else []
    parts = [TITLE, ", ".join(versions) + ".", "### Continuous time", table(False), "### Discrete time", table(True)]
    text = "\n\n".join(parts) + "\n"
    if chosen.page:
        chosen.page.write_text(chosen.page.read_text().partition(TITLE)[0] + text)
    else:
        print(text)


if __name__ == "__main__":
    main()
