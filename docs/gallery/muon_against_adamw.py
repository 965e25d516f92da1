"""Muon and AdamW on a small network: the median of 8 starts, and where all of them lie."""

import numpy as np
import torch
from matplotlib import pyplot as plt

from matsign.optim import Muon

STARTS, WIDTH, STEPS = 8, 32, 120
# The best of 0.006, 0.0125, 0.025, 0.05, 0.1, 0.2 and 0.4 for each, by the median loss at the end.
RATES = {Muon: 0.2, torch.optim.AdamW: 0.1}

random = torch.Generator().manual_seed(0)
x = torch.randn(512, WIDTH, generator=random) * torch.logspace(0, -1.5, WIDTH)  # features of different sizes
y = torch.sin(x @ torch.randn(WIDTH, 4, generator=random) * 2)


def losses(optimiser, rate):
    """The loss of every start after every step: each start is a member of a batch of networks."""
    random = torch.Generator().manual_seed(1)
    shapes = ((WIDTH, WIDTH), (WIDTH, WIDTH), (4, WIDTH))
    weights = [torch.randn(STARTS, *s, generator=random).div_(s[1] ** 0.5).requires_grad_() for s in shapes]
    options = {"batch_axes": 1} if optimiser is Muon else {}
    step = optimiser([{"params": weights, **options}], lr=rate, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.LinearLR(step, 1.0, 0.05, STEPS)
    history = []
    for _ in range(STEPS):
        h = x
        for w in weights[:-1]:
            h = torch.tanh(h @ w.mT)
        loss = (h @ weights[-1].mT - y).square().mean((1, 2))
        step.zero_grad()
        loss.sum().backward()
        step.step()
        decay.step()
        history.append(loss.detach())
    return torch.stack(history).numpy()


figure, axes = plt.subplots()
for (optimiser, rate), line in zip(RATES.items(), ("-", "--"), strict=True):
    history = losses(optimiser, rate)
    (drawn,) = axes.semilogy(np.median(history, 1), line, label=f"{optimiser.__name__}, rate {rate}")
    axes.fill_between(range(STEPS), history.min(1), history.max(1), color=drawn.get_color(), alpha=0.2, linewidth=0)
axes.set(xlabel="step", ylabel="mean square error", xlim=(0, STEPS))
axes.legend()
