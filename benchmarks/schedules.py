"""Where singular values in [l, 1] land: our tolerances on a grid, every schedule in use, and their coefficients.

    python benchmarks/schedules.py [docs/measurements/schedules.md]

Matrices are 96 × 96 with singular values spaced evenly in logarithms from 1 to l, made in 40 digits where float64 would not do:
diagonal up to an orthogonal factor on either side, so that rounding has something to round.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax.contrib
import torch
from arguments import page, parser

import matsign
from matsign import backends
from matsign.iterations import minimax, root_schedules
from matsign.iterations.minimax import NAMED, PADE, Step

jax.config.update("jax_enable_x64", True)
N = 96
LOWER = (1e-1, 1e-2, 1e-3, 1e-6, 1e-10, 1e-14)
TOLERANCES = (0.3, 0.1, 1e-2, 1e-3, 1e-6, 1e-10, 3e-15)
FINEST = {"float64": 3e-15, "float32": 1e-6, "bfloat16": 1e-2, "float16": 1e-3}
HEAD = """# Schedules, measured

The singular values that `msign` and other implementations of its steps leave, and the coefficients of the steps.
[How schedules are made](../explanation/schedules.md) explains both. `python benchmarks/schedules.py
docs/measurements/schedules.md` writes this page.

## Steps for a tolerance

The matrix is 96 × 96 with singular values between l and 1, equally spaced in logarithm. The call is
`msign(M, method="polynomial", tol=tol, rtol=l/2)`. A – stands for a tolerance or an l below the precision of the dtype.
"""
SCHEDULES = """
## Schedules in use

The smallest and the largest singular value of the result, for matrices with singular values between l and 1, in float64 unless
the optimiser fixes the dtype.
"""
COEFFICIENTS = """
## Coefficients beside those of their authors

Steps x ← a x + b x³ + c x⁵. The first two are minimax designs, as here: published, and designed by `matsign.iterations.minimax`
for the same interval [1e-3, 1] and with the same cushion."""
MINIMAX = """
{title}, cushion {cushion:.3g}:

| step | a, published | a, designed | b, published | b, designed | c, published | c, designed |
|---|---|---|---|---|---|---|"""
FOUND = """
The others were found by optimisation, for five steps. The last rows are the design of `steps=5`, for comparison.

| schedule | step | a | b | c |
|---|---|---|---|---|"""
# By order r, the steps (a, b, c) that Su 2025 publishes for eigenvalues in [1e-4, 1]; the later ones are the limit.
ROOTS_OF_SU = {
    1: [
        (14.2975, -31.2203, 18.9214),
        (7.12258, -7.78207, 2.35989),
        (6.9396, -7.61544, 2.3195),
        (5.98456, -6.77016, 2.12571),
        (3.79109, -4.18664, 1.39555),
    ],
    2: [
        (7.42487, -18.3958, 12.8967),
        (3.48773, -2.33004, 0.440469),
        (2.77661, -2.07064, 0.463023),
        (1.99131, -1.37394, 0.387593),
    ],
    3: [
        (5.05052, -13.5427, 10.2579),
        (2.31728, -1.06581, 0.144441),
        (1.79293, -0.913562, 0.186699),
        (1.56683, -0.786609, 0.220008),
    ],
    4: [(3.85003, -10.8539, 8.61893), (1.80992, -0.587778, 0.0647852), (1.50394, -0.594516, 0.121161)],
    5: [(3.11194, -8.28217, 6.67716), (1.5752, -0.393327, 0.0380364), (1.3736, -0.44661, 0.0911259)],
}
ORDERS = (1, 2, 3, 4, 5, 6, 8)
SMALLEST, GOAL = 1e-4, 1e-6
ROOTS = """
## Coefficients for roots of order r

Steps G ← G q(P), P ← P q(P)^r with q(z) = a + b z + c z², which lead to G P^{-1/r} for a positive definite P with eigenvalues in
[1e-4, 1]. Published are those of Su 2025; designed are those of `matsign.iterations.root_schedules` for the error 1e-6. For r = 2
they are quintics in the singular values, as above. All end in the Taylor polynomial of z^{-1/r} at 1.

| r | step | a, published | a, designed | b, published | b, designed | c, published | c, designed |
|---|---|---|---|---|---|---|---|"""
STEPS_OF_ROOTS = """
Steps until all eigenvalues have the relative error 1e-6, and the error |P^{1/r} - 1| after as many steps as the design takes.
"Newton" are the coefficients a = (r + 1)/r, b = -1/r, c = 0, whose steps take one product less; "Taylor" is the limit in each
step. All start with the largest eigenvalue 1 known.

| r | steps, designed | steps, published | steps, Taylor | steps, Newton | error, designed | error, published | error, Taylor |
|---|---|---|---|---|---|---|---|"""
DESIGNS = (
    ("CANS (Grishina, Smirnov & Rakhuba 2025)", "cans", 0.0),
    ("Polar Express (Amsel, Persson, Musco & Gower 2025)", "polar_express", 0.02407327424182761),
)
AUTHORS = {"muon": "Jordan 2024", "you": "You 2024", "su": "Su 2025"}


def orthogonal(rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((N, N)))[0]


def matrix(lower: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (orthogonal(rng) * np.geomspace(1, lower, N)) @ orthogonal(rng)


def spread(x: np.ndarray) -> float:
    """The largest |σ - 1| of x, to an accuracy that its own rounding allows."""
    gram = x.T.astype(np.longdouble) @ x.astype(np.longdouble)
    defect = np.linalg.norm((gram - np.eye(N)).astype(float), 2)
    return defect / 2 if defect < 1e-6 else abs(np.linalg.svd(x.astype(float), compute_uv=False) - 1).max()


def power(x: float) -> str:
    """1e-6 instead of 1e-06."""
    return f"{x:g}".replace("e-0", "e-")


def result(lower: float, tol: float, dtype: str) -> tuple[str, str]:
    """The number of steps and the largest |σ - 1|, or dashes."""
    m = torch.from_numpy(matrix(lower)).to(getattr(torch, dtype))
    if tol < FINEST[dtype] or lower < (0.1 if dtype.endswith("16") else 32 * torch.finfo(m.dtype).eps):
        return "–", "–"
    x, certificate = matsign.certify(matsign.msign)(m, method="polynomial", tol=tol, rtol=lower / 2)
    error = spread(x.double().numpy())
    return str(certificate.iterations), f"{error:.0e}".replace("e-0", "e-") + ("" if error <= tol else " **missed**")


def ours(lines: list[str]) -> None:
    for dtype in FINEST:
        results = {lower: [result(lower, tol, dtype) for tol in TOLERANCES] for lower in LOWER}
        for what, title in enumerate(("number of steps", "largest |σ - 1| of the result")):
            lines += [
                "",
                f"{dtype}, {title}:",
                "",
                "| l | " + " | ".join(f"tol = {power(t)}" for t in TOLERANCES) + " |",
            ]
            lines.append("|---" * (len(TOLERANCES) + 1) + "|")
            for lower, cells in results.items():
                if set(cells) != {("–", "–")}:
                    lines.append(f"| {power(lower)} | " + " | ".join(cell[what] for cell in cells) + " |")


def coefficients(lines: list[str]) -> None:
    lines += COEFFICIENTS.split("\n")
    for title, name, cushion in DESIGNS:
        lines += MINIMAX.format(title=title, cushion=cushion).split("\n")
        safety = 1.01 if name == "polar_express" else 1.0  # its steps in NAMED, except the last, are divided by this
        published = [Step(x.a * safety, x.b * safety**3, x.c * safety**5) for x in NAMED[name] if x != PADE]
        designed = minimax._greedy(1e-3, 1.0, room=0.0, goal=0.0, cushion=cushion, count=len(published))
        for k, pair in enumerate(zip(published, designed, strict=True), start=1):
            lines.append(f"| {k} | " + " | ".join(f"{x:.4f}" for both in zip(*pair, strict=True) for x in both) + " |")
    lines += FOUND.split("\n")
    found = {f'`schedule="{name}"`, {author}': NAMED[name] for name, author in AUTHORS.items()}
    found["`steps=5`"] = minimax.schedule_of_length(5, 0.2, 2.0**-52)
    for name, steps in found.items():
        for k, step in enumerate(steps, start=1):
            lines.append(f"| {name} | {k} | " + " | ".join(f"{x:.4f}" for x in step) + " |")


def taylor(order: int) -> tuple[float, ...]:
    """The coefficients of the Taylor polynomial of z^{-1/r} at 1, of degree 2."""
    second = (order + 1) / (2 * order**2)
    return 1 + 1 / order + second, -1 / order - 2 * second, second


def errors_of_roots(order: int, steps: list[tuple[float, ...]]) -> list[float]:
    """The largest |y - 1| after each step, for y^r in [SMALLEST, 1]."""
    y = np.geomspace(SMALLEST, 1, 4001) ** (1 / order)
    errors = []
    for q in steps:
        y = y * np.polynomial.Polynomial(q)(y**order)
        errors.append(float(abs(y - 1).max()))
    return errors


def roots(lines: list[str]) -> None:
    counted = []
    lines += ROOTS.split("\n")
    for order in ORDERS:
        limit, known = taylor(order), ROOTS_OF_SU.get(order, [])
        stages = root_schedules.narrow(order, 2, SMALLEST ** (1 / order), GOAL, 2.0**-52)
        steps = [stage.q for stage in stages]
        published = [*known, *[limit] * (500 - len(known))] if known else None
        for k, q in enumerate(steps):
            columns = zip(published[k] if published else (None,) * 3, q, strict=True)
            cells = ("–" if x is None else f"{x:.4f}" for both in columns for x in both)
            lines.append(f"| {order} | {k + 1} | " + " | ".join(cells) + " |")
        ways = (steps, published, [limit] * 500, [(1 + 1 / order, -1 / order)] * 500)
        errors = [way and errors_of_roots(order, way) for way in ways]
        counts = ("–" if x is None else str(1 + next(k for k, e in enumerate(x) if e < GOAL)) for x in errors)
        last = len(steps) - 1
        reached = ("–" if x is None else f"{x[last]:.0e}".replace("e-0", "e-") for x in errors[:3])
        counted.append(f"| {order} | " + " | ".join((*counts, *reached)) + " |")
    lines += STEPS_OF_ROOTS.split("\n") + counted


def theirs(lines: list[str]) -> None:
    lines += SCHEDULES.split("\n")
    columns = [f"l = {power(lower)}, {end}" for lower in LOWER[:3] for end in ("smallest", "largest")]
    lines += ["| schedule | steps | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]

    def add(name: str, count: int, f: object) -> None:
        cells = []
        for lower in LOWER[:3]:
            s = np.linalg.svd(np.asarray(f(matrix(lower)), float), compute_uv=False)  # type: ignore[operator]
            cells += [f"{s[-1]:.3f}", f"{s[0]:.3f}"]
        lines.append(f"| {name} | {count} | " + " | ".join(cells) + " |")

    for name, plan in NAMED.items():
        add(f'`schedule="{name}"`', len(plan), lambda m, name=name: matsign.msign(m, schedule=name))
    for count in (3, 4, 5, 6):
        add(f"`steps={count}`", count, lambda m, count=count: matsign.msign(m, steps=count))
    for short in ("float16", "bfloat16"):
        add(f'`steps=4, precision="half"`, {short}', 4, lambda m, short=short: in_half(m, short))
    su = [(3.3748, -4.6969, 2.1433)]
    add("Su's coefficients for every step", 5, lambda m: matsign.msign(m, schedule=su, steps=5))
    muon = torch.optim._muon._zeropower_via_newtonschulz  # type: ignore[attr-defined]
    add(
        "torch.optim.Muon, in bfloat16",
        5,
        lambda m: muon(torch.from_numpy(m), (3.4445, -4.775, 2.0315), 5, 1e-7).double().numpy(),
    )
    for way in ("frobenius", "spectral", "schatten", "aol"):
        add(f'optax.contrib.muon, preconditioning="{way}"', 5, lambda m, way=way: by_optax(m, "standard", way))
    add('optax.contrib.muon, ns_coeffs="dion"', 5, lambda m: by_optax(m, "dion", "frobenius"))


def in_half(m: np.ndarray, short: str) -> np.ndarray:
    """As on a device with units for this dtype."""
    backends.load("torch").fast_half_dtype = lambda x: short  # type: ignore[method-assign]
    return matsign.msign(torch.from_numpy(m), steps=4, precision="half").numpy()


def by_optax(m: np.ndarray, coefficients: str, preconditioning: str) -> np.ndarray:
    known = optax.contrib._muon._NS_COEFFS_PRESET_DICT  # type: ignore[attr-defined]
    orthogonalise = optax.contrib._muon.orthogonalize_via_newton_schulz  # type: ignore[attr-defined]
    return np.asarray(orthogonalise(jnp.asarray(m), jnp.asarray(known[coefficients]), 5, preconditioning))


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "page", nargs="?", type=page, metavar="PAGE.md", help="the page to write, docs/measurements/schedules.md"
    )
    chosen = options.parse_args()
    lines = [HEAD.rstrip()]
    ours(lines)
    theirs(lines)
    coefficients(lines)
    roots(lines)
    text = "\n".join(lines) + "\n"
    print(text)
    if chosen.page:
        chosen.page.write_text(text)


if __name__ == "__main__":
    main()
