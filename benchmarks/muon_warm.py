"""Training with matsign.optim.Muon(warm=True) beside the same without it: how many steps start warm, their time, and the loss.

    python benchmarks/muon_warm.py [OUT.json] [--width 256] [--steps 200] [--tol 1e-2] [--rows 512]

A perceptron with two square matrices under Muon learns a random teacher, from the whole data set and from batches of 64. Both
optimisers see the same batches; their steps are taken in turn. The time is that of all steps of the optimiser, CPU time of one
thread.
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import torch
from arguments import json_file, parser

from matsign.optim import Muon

INPUTS, CLASSES = 32, 10
MOMENTA = (0.9, 0.95, 0.99, 0.995)


def problem(rows):
    """Inputs, and the classes that a random perceptron gives them."""
    torch.manual_seed(0)
    teacher = torch.nn.Sequential(torch.nn.Linear(INPUTS, 128), torch.nn.Tanh(), torch.nn.Linear(128, CLASSES))
    x = torch.randn(rows, INPUTS)
    return x, (3 * teacher(x)).argmax(-1).detach()


class Run:
    """A model in training, and what its steps under Muon took."""

    def __init__(self, width, **options):
        torch.manual_seed(1)
        sizes = [INPUTS, width, width, width]
        layers = [f for n, m in itertools.pairwise(sizes) for f in (torch.nn.Linear(n, m), torch.nn.Tanh())]
        self.model = torch.nn.Sequential(*layers, torch.nn.Linear(width, CLASSES))
        self.matrices = [p for p in self.model.parameters() if p.shape == (width, width)]
        rest = [p for p in self.model.parameters() if all(p is not q for q in self.matrices)]
        self.muon = Muon(self.matrices, weight_decay=0.0, **options)
        self.adamw = torch.optim.AdamW(rest, lr=2e-3)
        self.seconds, self.warm = 0.0, 0

    def step(self, x, y):
        before = [self.muon.state[p].get("warm", (0, 0, 0))[2] for p in self.matrices]
        self.loss = torch.nn.functional.cross_entropy(self.model(x), y)
        self.model.zero_grad()
        self.loss.backward()
        start = time.thread_time()
        self.muon.step()
        self.seconds += time.thread_time() - start
        self.adamw.step()
        after = [self.muon.state[p].get("warm", (0, 0, 0)) for p in self.matrices]
        self.warm += sum(s > b or s == 4 for b, (_, _, s) in zip(before, after, strict=True))


def compare(x, y, batch, *, width, steps, tol, momentum, nesterov):
    """Fraction of warm starts, time of warm over cold steps, and both losses at the end."""
    options = {"lr": 0.02, "momentum": momentum, "nesterov": nesterov, "tol": tol}
    runs = [Run(width, **options), Run(width, warm=True, **options)]
    generator = torch.Generator().manual_seed(2)
    for k in range(steps):
        chosen = torch.randint(len(x), (batch,), generator=generator) if batch < len(x) else slice(None)
        for run in runs if k % 2 else runs[::-1]:
            for group in run.muon.param_groups:
                group["lr"] = 0.02 * (1 - k / steps)
            run.step(x[chosen], y[chosen])
    losses = [torch.nn.functional.cross_entropy(run.model(x), y).item() for run in runs]
    cold, warm = runs
    return {"warm": warm.warm / (steps * len(warm.matrices)), "time": warm.seconds / cold.seconds, "losses": losses}


def main():
    options = parser(__doc__)
    options.add_argument("out", nargs="?", type=json_file, metavar="OUT.json", help="where the figures go")
    options.add_argument("--width", type=int, default=256, help="of the model (default 256)")
    options.add_argument("--steps", type=int, default=200, help="of the training (default 200)")
    options.add_argument("--rows", type=int, default=512, help="of the data set (default 512)")
    options.add_argument("--tol", type=float, default=1e-2, help="of msign (default 1e-2)")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    x, y = problem(chosen.rows)
    found = []
    for batch in (chosen.rows, 64):
        for momentum in MOMENTA:
            for nesterov in (True, False):
                row = {"batch": batch, "momentum": momentum, "nesterov": nesterov}
                row |= compare(
                    x,
                    y,
                    batch,
                    width=chosen.width,
                    steps=chosen.steps,
                    tol=chosen.tol,
                    momentum=momentum,
                    nesterov=nesterov,
                )
                found.append(row)
                print(
                    f"batch {batch:5} momentum {momentum:5} {'Nesterov' if nesterov else '        '} warm {row['warm']:5.0%} "
                    f"time {row['time']:.2f} losses {row['losses'][0]:.4f} {row['losses'][1]:.4f}",
                    flush=True,
                )
    if chosen.out:
        Path(chosen.out).write_text(json.dumps({"options": vars(chosen) | {"out": None}, "rows": found}, indent=1))


if __name__ == "__main__":
    main()
