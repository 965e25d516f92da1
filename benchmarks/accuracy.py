"""Forward errors on hard matrices, beside SciPy and PyTorch, against answers in 80 digits (FLINT and mpmath).

    python benchmarks/accuracy.py [docs/measurements/accuracy.md]    # writes the page

An error is ‖x - X‖ / ‖X‖ in Frobenius norms, where X is the exact answer for the same doubles that the function got.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy
import scipy.linalg as sl
import torch
from arguments import page, parser

import matsign

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import matrices
import truth

N = 8
HEAD = f"""# Accuracy, measured

How many digits each function has on hard matrices, beside SciPy and PyTorch. `python benchmarks/accuracy.py
docs/measurements/accuracy.md` writes this page. Riccati equations have [a page of their own](riccati.md).

## How to read the table

- An error is $\\lVert x - X\\rVert / \\lVert X\\rVert$, where $X$ is the exact answer for the same doubles, computed in 80 digits
  by FLINT and mpmath. Rounding $X$ itself to doubles makes an error of up to 1e-16.
- "Rounding" is the error that rounding of the arguments alone may cause: the condition number (`matsign.condition`) times 1e-16.
  An error of this size is not the fault of a method. It is measured in norms, so it says nothing where units differ by much.
- "Certificate" is the forward error that `certify` estimates, without $X$.
- SciPy and PyTorch have the function itself, or the shortest code for it. A – stands for none, and "no answer" for an exception
  or NaN.

SciPy is the more accurate one for eigenvectors of condition 1e5 (`mcsgn`), and for roots of definite matrices by a factor of 2 to
10. `mcsgn` of graded matrices, means, coupled roots and equations are where matsign gains most. `hankel_singular_values` and
`balanced_truncation` are not in the tables, because their exact answers are not known.

All matrices are {N} × {N} in float64, on a CPU, by `method="auto"`.
"""
DIVISION = """
## Single precision

The same for arguments in float32, for the functions of machine learning. On a CPU matsign computes these in double precision
inside; rounding the result to floats makes an error of up to 6e-8.
"""


class Case(NamedTuple):
    """A function on arguments, with the exact answer, and what else computes it."""

    function: Callable[..., Any]
    matrix: str
    arguments: tuple[Any, ...]
    exact: Callable[..., Any]
    scipy: Callable[..., Any] | None = None
    torch: Callable[..., Any] | None = None


def signs(rng: np.random.Generator) -> Iterator[Case]:
    eigenvalues = np.diag([1.0, -1, 2, -2, 3, -3, 4, -4])
    jordan = matrices.block_diagonal(matrices.jordan(1.0, 4), matrices.jordan(-1.0, 4))
    rotations = matrices.rotation(1e-4, 1), matrices.rotation(-1e-4, 2)
    near = matrices.block_diagonal(*rotations, np.diag([1.0, -1, 2, -2]))
    hard = {
        "Gaussian": matrices.gaussian(rng, N, N),
        "eigenvalues from 1e-8 to 1": matrices.similar(
            rng, np.diag(matrices.graded(N, 1e8) * ([1, -1] * (N // 2))), 10
        ),
        "eigenvectors of condition 1e5": matrices.similar(rng, eigenvalues, 1e5),
        "Jordan blocks of size 4": matrices.similar(rng, jordan, 10),
        "eigenvalues at 1e-4 from the axis": matrices.similar(rng, near, 10),
    }
    for name, m in hard.items():
        yield Case(matsign.mcsgn, name, (m,), truth.sign, sl.signm)
    m = hard["eigenvectors of condition 1e5"]
    yield Case(matsign.matrix_abs, "eigenvectors of condition 1e5", (m,), lambda m: truth.exact(m) @ truth.sign(m))
    yield Case(matsign.spectral_projector, "Gaussian", (hard["Gaussian"],), projector, schur_projector)


def projector(m: np.ndarray) -> Any:
    return (truth.eye(N) + truth.sign(m)) / 2


def schur_projector(m: np.ndarray) -> Any:
    return (np.eye(N) + sl.signm(m)) / 2


def singular_values(rng: np.random.Generator) -> Iterator[Case]:
    for condition in (1e2, 1e8, 1e14):
        m = matrices.with_singular_values(rng, N, N, matrices.graded(N, condition))
        name = f"condition {condition:.0e}".replace("e+0", "e").replace("e+", "e")
        yield Case(matsign.msign, name, (m,), truth.msign, lambda m: sl.polar(m)[0], torch_msign)
        if condition == 1e8:
            yield Case(matsign.polar, name, (m,), polar, sl.polar)
    m = matrices.with_singular_values(rng, N, N, matrices.graded(N, 1e6)) * 1e3
    name = "singular values from 1e-3 to 1e3"
    yield Case(matsign.mclip, name, (m, 0.0, 1.0), truth.mclip, scipy_mclip, torch_mclip)
    yield Case(matsign.soft_threshold, name, (m, 1.0), truth.soft_threshold, scipy_soft, torch_soft)
    h = matrices.gaussian(rng, N, N)
    yield Case(matsign.psd_project, "Gaussian, symmetric", (h + h.T,), truth.psd_project, scipy_psd, torch_psd)


def polar(m: np.ndarray) -> Any:
    u = truth.msign(m)
    return u, truth.adjoint(u) @ m


def torch_msign(m: Any) -> Any:
    u, _, vh = torch.linalg.svd(m)
    return u @ vh


def scipy_mclip(m: np.ndarray, lower: float, upper: float) -> Any:
    u, s, vh = sl.svd(m)
    return (u * np.clip(s, lower, upper)) @ vh


def torch_mclip(m: Any, lower: float, upper: float) -> Any:
    u, s, vh = torch.linalg.svd(m)
    return (u * s.clip(lower, upper)) @ vh


def scipy_soft(m: np.ndarray, t: float) -> Any:
    u, s, vh = sl.svd(m)
    return (u * np.maximum(s - t, 0)) @ vh


def torch_soft(m: Any, t: float) -> Any:
    u, s, vh = torch.linalg.svd(m)
    return (u * (s - t).clip(0)) @ vh


def scipy_psd(h: np.ndarray) -> Any:
    values, v = sl.eigh(h)
    return (v * np.maximum(values, 0)) @ v.T


def torch_psd(h: Any) -> Any:
    values, v = torch.linalg.eigh(h)
    return (v * values.clip(0)) @ v.T


def inverse_root(a: np.ndarray, p: int) -> Any:
    return truth.power(a, -1, p)


def torch_inverse_root(a: Any, p: int) -> Any:
    return torch_root(-1 / p)(a)


def no_root(power: float) -> None:
    """PyTorch has no function of a general matrix."""


def torch_root(power: float) -> Callable[..., Any]:
    def root(a: Any) -> Any:
        values, v = torch.linalg.eigh(a)
        return (v * values**power) @ v.T

    return root


def scipy_root(a: np.ndarray, p: int) -> Any:
    return sl.fractional_matrix_power(a, 1 / p)


def roots(rng: np.random.Generator) -> Iterator[Case]:
    definite = matrices.definite(rng, N, 1e8)
    general = matrices.similar(rng, np.diag(np.geomspace(1, 1e-4, N)), 1e3)
    names = {"definite, condition 1e8": definite, "eigenvectors of condition 1e3": general}
    for name, a in names.items():
        eigh = torch_root if a is definite else no_root
        yield Case(matsign.sqrtm, name, (a,), lambda a: truth.root_pair(a)[0], sl.sqrtm, eigh(0.5))
        inverse = lambda a: sl.inv(sl.sqrtm(a))  # noqa: E731
        yield Case(matsign.invsqrtm, name, (a,), lambda a: truth.root_pair(a)[1], inverse, eigh(-0.5))
        yield Case(matsign.sqrtm_pair, name, (a,), truth.root_pair)
        yield Case(matsign.rootm, f"{name}, p = 5", (a, 5), lambda a, p: truth.power(a, 1, p), scipy_root)
        f, peer = matsign.fractional_matrix_power, sl.fractional_matrix_power
        yield Case(f, f"{name}, t = 0.3", (a, 0.3), truth.power, peer)
        yield Case(matsign.logm, name, (a,), truth.logarithm, sl.logm)
        f, exact = matsign.invrootm, inverse_root
        yield Case(f, f"{name}, p = 4", (a, 4), exact, None, torch_inverse_root if a is definite else None)
    g = matrices.gaussian(rng, N, N)
    product = lambda g, a, p: truth.exact(g) @ truth.power(a, -1, p)  # noqa: E731
    name = "Gaussian; definite, condition 1e8, p = 4"
    yield Case(matsign.invroot_product, name, (g, definite, 4), product, None, lambda g, a, p: g @ torch_root(-0.25)(a))
    a, b = matrices.definite(rng, N, 1e6), matrices.definite(rng, N, 1e6)
    name = "definite, conditions 1e6"
    mean = lambda a, b: a @ sl.sqrtm(sl.solve(a, b))  # noqa: E731
    yield Case(matsign.geometric_mean, name, (a, b), truth.geometric_mean, mean)
    coupled = lambda a, b: a @ sl.inv(sl.sqrtm(b @ a))  # noqa: E731
    yield Case(matsign.coupled_root, name, (a, b), truth.coupled_root, coupled)


def equations(rng: np.random.Generator) -> Iterator[Case]:
    q = matrices.gaussian(rng, N, N)
    a, b = matrices.stable(rng, N, condition=1e3), matrices.stable(rng, N, condition=1e3)
    g, h = matrices.gaussian(rng, N, N), matrices.gaussian(rng, N, N)
    near = matrices.similar(rng, np.diag(np.arange(1.0, N + 1)), 10)
    f, peer = matsign.solve_sylvester, sl.solve_sylvester
    yield Case(f, "separable, eigenvectors of condition 1e3", (a, b, q), truth.sylvester, peer)
    yield Case(f, "Gaussian", (g, h, q), truth.sylvester, peer)
    yield Case(f, "separation about 1e-9", (near, 1e-9 * np.eye(N) - near.T, q), truth.sylvester, peer)
    units = 10.0 ** np.linspace(-6, 6, N)
    scaled, s = (a * units) / units[:, None], -q @ q.T / units / units[:, None]
    f, peer = matsign.solve_continuous_lyapunov, sl.solve_continuous_lyapunov
    yield Case(f, "stable", (-a, -q @ q.T), truth.lyapunov, peer)
    yield Case(f, "units that differ by 1e12", (-scaled, s), truth.lyapunov, peer)
    c = matrices.contraction(rng, N, radius=0.999, condition=100)
    yield Case(matsign.solve_discrete_lyapunov, "radius 0.999", (c, q @ q.T), truth.stein, sl.solve_discrete_lyapunov)
    d = matrices.contraction(rng, N, radius=0.99, condition=100)
    yield Case(matsign.solve_discrete_sylvester, "radii 0.999 and 0.99", (c, d, q), truth.discrete_sylvester)
    g, h, k, o = (matrices.gaussian(rng, N, N) for _ in range(4))
    yield Case(matsign.solve_generalized_sylvester, "Gaussian", (g, h, k, o, q), truth.generalized_sylvester)
    yield Case(matsign.solve_sylvester_pair, "Gaussian", (g, h, q, k, o, q.T), truth.sylvester_pair)
    b = matrices.gaussian(rng, N, 3)
    yield Case(matsign.lyapunov_factor, "stable, 3 inputs", (-a, b), truth.lyapunov_factor)
    yield Case(matsign.discrete_lyapunov_factor, "radius 0.999, 3 inputs", (c, b), truth.stein_factor)
    stable = -matrices.stable(rng, N, condition=100), matrices.stable(rng, N, condition=100)
    g, h = (0.1 * matrices.gaussian(rng, N, N) for _ in range(2))
    yield Case(matsign.solve_riccati, "eigenvectors of condition 100", (*stable, g, h), truth.riccati)


def single(rng: np.random.Generator) -> Iterator[Case]:
    """The cases of machine learning, for arguments in single precision."""
    for condition in (1e1, 1e3, 1e6):
        m = matrices.with_singular_values(rng, N, N, matrices.graded(N, condition)).astype("float32")
        name = f"condition {condition:.0e}".replace("e+0", "e")
        yield Case(matsign.msign, name, (m,), truth.msign, lambda m: sl.polar(m)[0], torch_msign)
    a = matrices.definite(rng, N, 1e4).astype("float32")
    inverse = lambda a: sl.inv(sl.sqrtm(a))  # noqa: E731
    yield Case(
        matsign.sqrtm, "definite, condition 1e4", (a,), lambda a: truth.root_pair(a)[0], sl.sqrtm, torch_root(0.5)
    )
    exact = lambda a: truth.root_pair(a)[1]  # noqa: E731
    yield Case(matsign.invsqrtm, "definite, condition 1e4", (a,), exact, inverse, torch_root(-0.5))


def power(x: float) -> str:
    return (
        "no answer"
        if not np.isfinite(x)
        else "0"
        if x < 1e-20
        else f"{x:.0e}".replace("e-0", "e-").replace("e+00", "").replace("e+", "e")
    )


def error(value: Any, exact: Any) -> float:
    """The largest error of the results; of the first one where only one was computed."""
    values, answers = (x if isinstance(x, tuple) else (x,) for x in (value, exact))
    arrays = [np.asarray(x) for x in values]
    if not all(np.isfinite(x).all() for x in arrays):
        return np.nan
    return max(truth.error(x, y) for x, y in zip(arrays, answers, strict=False))


def by_peer(f: Callable[..., Any] | None, arguments: tuple[Any, ...], exact: Any) -> str:
    if f is None:
        return "–"
    try:
        return power(error(f(*arguments), exact))
    except (ValueError, ArithmeticError, np.linalg.LinAlgError):
        return "no answer"


def row(case: Case) -> str:
    exact = case.exact(*case.arguments)
    value, certificate = matsign.certify(case.function)(*case.arguments)
    condition = float(matsign.condition(case.function)(*case.arguments))
    unit = np.finfo(case.arguments[0].dtype).eps / 2
    tensors = tuple(torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in case.arguments)
    cells = [power(condition * unit), power(error(value, exact)), power(certificate.forward_error)]
    cells += [by_peer(case.scipy, case.arguments, exact), by_peer(case.torch, tensors, exact)]
    return f"| `{case.function.__name__}` | {case.matrix} | " + " | ".join(cells) + " |"


def table(cases: Iterator[Case]) -> str:
    head = ["| function | matrix | rounding | matsign | certificate | SciPy | PyTorch |", "|---" * 7 + "|"]
    lines = []
    for case in cases:
        lines.append(row(case))
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join([*head, *lines])


def main() -> None:
    options = parser(__doc__)
    options.add_argument("page", nargs="?", type=page, metavar="PAGE.md", help="the page to write")
    chosen = options.parse_args()
    warnings.simplefilter("ignore")
    versions = f"NumPy {np.__version__}, SciPy {scipy.__version__}, PyTorch {torch.__version__.partition('+')[0]}."
    parts = [HEAD, versions]
    for title, group in {
        "Signs of eigenvalues": signs,
        "Singular values": singular_values,
        "Roots, powers and the logarithm": roots,
        "Equations": equations,
    }.items():
        parts += [f"\n## {title}\n", table(group(np.random.default_rng(0)))]
    parts += [DIVISION, table(single(np.random.default_rng(0)))]
    text = "\n".join(parts) + "\n"
    if chosen.page:
        chosen.page.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
