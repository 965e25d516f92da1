"""Learning to learn: a step of Muon inside the forward pass, and the gradient through it.

A layer with fast weights w learns while it runs (test-time training). From every chunk of a sequence it makes keys k
and values v, takes the gradient of the inner loss |w k - v|², and steps as the Muon optimiser does,

    momentum <- decay momentum + gradient,    w <- w - rate msign(momentum);

then w answers queries about the next chunk. What is learnt beforehand, in the outer loop, are the maps that make keys,
values, queries and answers, the decay, and a rate for every inner step. A good key is one that w learns well from, and
nothing but the gradient through the inner step says so.

The task is a regression in context. In each sequence y is a rotation of 8 of the 32 directions of x, with noise; the
rotation is new in every sequence and the directions are the same in all. So the rotation must be learnt in the forward
pass, and the 8 directions beforehand. Three inner steps are compared: msign with the gradient through it, msign cut off
from the gradient (queries, answers and rates are still learnt), and gradient descent with momentum with the gradient
through it. A rotation is what msign gives, so this task suits it.

The picture shows, for three seeds, the outer loss; how much of the key map lies in the 8 directions; and the error of
what was learnt, on new sequences, after 0, 1, ... chunks. As a step of msign is as long as its rate says, however
little is left to learn, its error stops falling earlier than that of gradient descent; it is the smaller one all the
same.

    python examples/test_time_training.py --out fast_weights.png
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

import matsign

SIGNAL, WIDTH, NOISE = 8, 32, 0.1  # directions that matter, all directions, noise of y
CHUNK, CHUNKS = 16, 4

INNER_STEPS = {
    "msign, gradient through it": matsign.msign,
    "msign, cut off": lambda momentum: matsign.msign(momentum.detach()),
    "gradient descent, gradient through it": lambda momentum: momentum,
}


def sequences(count, directions, generator):
    """(x, y) with y = rotation x_signal + noise, x_signal along the first rows of `directions`."""
    length = CHUNK * (CHUNKS + 1)
    rotations = torch.linalg.qr(torch.randn(count, SIGNAL, SIGNAL, generator=generator)).Q
    x = torch.randn(count, length, WIDTH, generator=generator)
    y = x @ directions[:SIGNAL].mT @ rotations.mT
    return x, y + NOISE * torch.randn(y.shape, generator=generator)


class FastWeights(nn.Module):
    """Reads (x, y) in chunks; before it learns from a chunk it predicts the chunk's y."""

    def __init__(self, inner_step):
        super().__init__()
        self.inner_step = inner_step
        self.key, self.query = (nn.Parameter(torch.randn(SIGNAL, WIDTH) / WIDTH**0.5) for _ in range(2))
        self.value, self.answer = (nn.Parameter(torch.eye(SIGNAL)) for _ in range(2))
        self.log_rates = nn.Parameter(torch.full((CHUNKS,), -1.0))
        self.decay = nn.Parameter(torch.tensor(0.0))  # 1/2, through a sigmoid

    def forward(self, x, y):
        """Mean square error of the predictions after 0, 1, ... CHUNKS chunks."""
        keys, values, queries = x @ self.key.mT, y @ self.value.mT, x @ self.query.mT
        w = momentum = x.new_zeros(len(x), SIGNAL, SIGNAL)
        errors = []
        for at, rate in zip(torch.arange(x.shape[1]).split(CHUNK), [*self.log_rates.exp(), None], strict=True):
            found = queries[:, at] @ w.mT @ self.answer.mT
            errors.append(((found - y[:, at]) ** 2).mean())
            if rate is None:  # nothing is asked after the last chunk
                break
            gradient = (keys[:, at] @ w.mT - values[:, at]).mT @ keys[:, at] / CHUNK
            momentum = self.decay.sigmoid() * momentum + gradient
            w = w - rate * self.inner_step(momentum)
        return torch.stack(errors)


class Learnt(NamedTuple):
    """What one run gave: two curves over the outer steps, and the errors on new sequences after each chunk."""

    loss: np.ndarray
    aligned: np.ndarray
    errors: np.ndarray


def learn(kind, steps, seed, count=64):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q
    model = FastWeights(INNER_STEPS[kind])
    minimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    loss, aligned = [], []
    for _ in range(steps):
        outer = model(*sequences(count, directions, generator))[1:].mean()
        minimiser.zero_grad()
        outer.backward()
        minimiser.step()
        loss.append(outer.item())
        with torch.no_grad():
            aligned.append(((model.key @ directions[:SIGNAL].mT).norm() / model.key.norm()).item() ** 2)
    with torch.no_grad():
        errors = model(*sequences(512, directions, generator))
    return Learnt(np.array(loss), np.array(aligned), errors.numpy())


def picture(runs):
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels = figure.subplots(1, 3)
    titles = ("Outer loss", "What the keys look at", "Learning in the forward pass")
    for (kind, learnt), colour in zip(runs.items(), ("#e07b39", "#8a8a8a", "#3b82c4"), strict=True):
        for axes, part in zip(panels, Learnt._fields, strict=True):
            curves = np.stack([getattr(run, part) for run in learnt])
            mark = {"marker": "o"} if part == "errors" else {}
            axes.plot(curves.T, color=colour, alpha=0.3, lw=1)
            axes.plot(curves.mean(0), color=colour, lw=2, label=kind, **mark)
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    for axes in panels[::2]:
        axes.axhline(NOISE**2, color="#222222", ls=":", lw=1)
        axes.annotate(
            "noise of y", (1, NOISE**2), (-4, 3), ("axes fraction", "data"), "offset points", ha="right", fontsize=8
        )
        axes.set(yscale="log", ylim=(6e-3, 2), ylabel="mean square error of y", xlabel="outer step")
    panels[1].axhline(SIGNAL / WIDTH, color="#222222", ls="--", lw=1, label="a random map")
    panels[1].set(xlabel="outer step", ylabel=f"share of the key map in the {SIGNAL} directions", ylim=(0, 1.03))
    panels[2].set(xlabel=f"chunks of {CHUNK} pairs read", xticks=range(CHUNKS + 1))
    panels[1].legend(frameon=False, fontsize=8, loc="center right")
    return figure


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed and fewer steps")
    parser.add_argument("--out", default="test_time_training.png", help="where the picture goes")
    chosen = parser.parse_args(arguments)
    seeds, steps = (1, 100) if chosen.quick else (3, 300)
    runs = {}
    for kind in INNER_STEPS:
        runs[kind] = [learn(kind, steps, seed) for seed in range(seeds)]
        after = np.mean([run.errors for run in runs[kind]], 0)
        print(f"{kind:38} error after 0, 1, ... chunks: " + "  ".join(f"{error:.3f}" for error in after))
    picture(runs).savefig(chosen.out, dpi=100)
    print("picture:", chosen.out)
    return runs


if __name__ == "__main__":
    main()
