"""What does this operator care about? The weights of a regulator, learnt from how it moves.

One operator handles two carts joined by a spring, with a force on each, and picks up different loads. For every load it
applies the gain that is optimal for the same cost, the integral of xᵀqx + uᵀru. We see states and forces, never q and
r. From a guess of q and r,

    x = solve_continuous_are(a, b, q, r),    gain = r⁻¹ bᵀx,    loss = mean |u + gain x|²

predicts the forces for all loads in one batched call, and the gradient of the loss with respect to q and r runs back
through the Riccati equation. Two things no motion shows: a common factor, fixed here by trace r = 2, and a cost 2 pᵀs ṗ
with s symmetric on positions p and speeds together, which integrates to -pᵀs p at the start whatever is done; so q is
made of a block for the positions and a block for the speeds. That leaves 8 numbers, as many as the gain of one load
has; more loads tell them better where the forces are measured with errors (--noise).

The model is written once and runs on PyTorch and on JAX; only the minimisers differ (torch.optim.LBFGS, and SciPy's
BFGS fed by jax.value_and_grad).

The picture shows the loss and the distance from the true weights over the evaluations; all entries of q and r, true,
guessed and learnt; and for loads outside those that were seen, how the carts move under the operator, under the first
guess and under what was learnt.

    python examples/inverse_optimal_control.py --library jax --out weights.png
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

import numpy as np
import scipy.linalg
import scipy.optimize
from matplotlib.figure import Figure

import matsign

TRUE_Q = scipy.linalg.block_diag([[4.0, -1.5], [-1.5, 2.0]], [[0.8, 0.3], [0.3, 0.5]])
TRUE_R = np.array([[0.6, 0.25], [0.25, 1.4]])
FLOOR = 1e-3  # keeps both guesses positive definite


def carts(loads):
    """(a, b) for every row of loads: positions and speeds of two carts with a spring and a damper between them."""
    a, b = np.zeros((len(loads), 4, 4)), np.zeros((len(loads), 4, 2))
    a[:, 0, 2] = a[:, 1, 3] = 1
    for k in (0, 1):
        a[:, 2 + k, :] = np.array([-1, 1, -0.2, 0.2]) * (-1) ** k / loads[:, k, None]
        b[:, 2 + k, k] = 1 / loads[:, k]
    return a, b


def simulate(a, b, q, r, start, times):
    """States and forces under the optimal gain, (times, 4) and (times, 2), found by SciPy alone."""
    gain = scipy.linalg.solve(r, b.T @ scipy.linalg.solve_continuous_are(a, b, q, r), assume_a="pos")
    states = np.stack([scipy.linalg.expm((a - b @ gain) * t) @ start for t in times])
    return states, -states @ gain.T


def observed(systems, noise=0.0, seed=0):
    """What the operator did with each of a few loads: a, b, states, forces."""
    rng = np.random.default_rng(seed)
    a, b = carts(rng.uniform(0.5, 4.0, (systems, 2)))
    times = np.linspace(0, 6, 40)
    starts = rng.standard_normal((systems, 3, 4))
    runs = [[simulate(a[k], b[k], TRUE_Q, TRUE_R, s, times) for s in starts[k]] for k in range(systems)]
    states, forces = (np.stack([np.concatenate([run[i] for run in of]) for of in runs]) for i in (0, 1))
    return a, b, states, forces + noise * rng.standard_normal(forces.shape)


def weights(xp, factors):
    """(q, r) from the factors, 2 × 2 each, of a guess; trace r = 2."""
    unit = xp.eye(2, dtype=factors[0].dtype)
    positions, speeds, r = (f @ f.mT + FLOOR * unit for f in factors)
    q = xp.concatenate([xp.concatenate([positions, 0 * unit], 1), xp.concatenate([0 * unit, speeds], 1)])
    return q, 2 * r / xp.trace(r)


def loss(xp, factors, data):
    """How far the forces are from those that the guess predicts."""
    a, b, states, forces = data
    q, r = weights(xp, factors)
    x = matsign.solve_continuous_are(a, b, q, r)
    gain = xp.linalg.solve(r, b.mT @ x)
    return ((forces + states @ gain.mT) ** 2).mean()


@dataclass
class History:
    """What every evaluation found."""

    loss: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    guesses: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, value, q, r):
        q, r = np.asarray(q), np.asarray(r)
        self.guesses.append((q, r))
        self.loss.append(float(value))
        self.error.append(max(distance(q, TRUE_Q), distance(r, TRUE_R)))
        if len(self.loss) % 10 == 1:
            print(f"evaluation {len(self.loss):4}   loss {self.loss[-1]:.2e}   error of q and r {self.error[-1]:.2e}")


def distance(found, true):
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def fit_torch(data, evaluations):
    import torch

    data = [torch.from_numpy(x) for x in data]
    factors = [torch.eye(2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    history = History()
    minimiser = torch.optim.LBFGS(
        factors, 1.0, evaluations, evaluations, 1e-12, 1e-16, history_size=50, line_search_fn="strong_wolfe"
    )

    def evaluate():
        minimiser.zero_grad()
        value = loss(torch, factors, data)
        value.backward()
        with torch.no_grad():
            history.add(value, *weights(torch, factors))
        return value

    minimiser.step(evaluate)
    return history


def fit_jax(data, evaluations):
    import jax
    from jax.flatten_util import ravel_pytree

    jax.config.update("jax_enable_x64", True)
    xp = jax.numpy
    data = [xp.asarray(x) for x in data]
    start, unflatten = ravel_pytree([xp.eye(2)] * 3)
    slope = jax.jit(jax.value_and_grad(lambda flat, data: loss(xp, unflatten(flat), data)))
    history = History()

    def evaluate(flat):
        value, gradient = slope(xp.asarray(flat), data)
        history.add(value, *weights(xp, unflatten(xp.asarray(flat))))
        return float(value), np.asarray(gradient)

    options = {"maxiter": evaluations, "gtol": 1e-12}
    scipy.optimize.minimize(evaluate, np.asarray(start), jac=True, method="BFGS", options=options)
    return history


def picture(history):
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    progress, entries, motion = figure.subplots(1, 3)
    progress.semilogy(history.loss, color="#3b82c4", label="loss: mean square error of the forces")
    progress.semilogy(history.error, color="#e07b39", label="relative error of the worse of q and r")
    progress.set(xlabel="evaluation of loss and gradient", title="Descent through the Riccati equation")
    draw_entries(entries, history)
    draw_motion(motion, history)
    for axes in (progress, entries, motion):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    return figure


def draw_entries(axes, history):
    names = ["q11", "q12", "q22", "q33", "q34", "q44", "r11", "r12", "r22"]

    def picked(q, r):
        return [q[0, 0], q[0, 1], q[1, 1], q[2, 2], q[2, 3], q[3, 3], r[0, 0], r[0, 1], r[1, 1]]

    axes.plot(names, picked(TRUE_Q, TRUE_R), "o", mfc="none", color="#555555", ms=11, label="the operator's")
    axes.plot(names, picked(*history.guesses[0]), "x", color="#b8559a", label="first guess")
    axes.plot(names, picked(*history.guesses[-1]), "o", color="#e07b39", ms=5, label="learnt")
    axes.set(xlabel="entry", ylabel="value", title="The weights")


def draw_motion(axes, history):
    a, b = carts(np.array([[5.0, 0.4]]))  # loads outside those that were learnt from
    times = np.linspace(0, 8, 161)
    styles = {
        "operator": ((TRUE_Q, TRUE_R), {"color": "#bbbbbb", "lw": 5}),
        "first guess": (history.guesses[0], {"color": "#b8559a", "ls": "--"}),
        "learnt": (history.guesses[-1], {"color": "#e07b39"}),
    }
    for name, ((q, r), style) in styles.items():
        states, _ = simulate(a[0], b[0], q, r, np.array([1.0, -0.5, 0.0, 0.0]), times)
        axes.plot(times, states[:, 0], label=name, **style)
        axes.plot(times, states[:, 1], **style)
    axes.annotate("cart of mass 5", (1.9, 0.7))
    axes.annotate("cart of mass 0.4", (0.8, -0.35))
    axes.set(xlabel="time", ylabel="position", title="Loads that were never seen")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", choices=("torch", "jax"), default="torch")
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation of what is added to the forces")
    parser.add_argument("--quick", action="store_true", help="fewer loads")
    parser.add_argument("--out", default="inverse_optimal_control.png", help="where the picture goes")
    chosen = parser.parse_args(arguments)
    data = observed(3 if chosen.quick else 12, chosen.noise)
    history = {"torch": fit_torch, "jax": fit_jax}[chosen.library](data, 100)
    print(f"{len(history.loss)} evaluations: loss {history.loss[-1]:.1e}, relative error {history.error[-1]:.1e}")
    picture(history).savefig(chosen.out, dpi=100)
    print("picture:", chosen.out)
    return history


if __name__ == "__main__":
    main()
