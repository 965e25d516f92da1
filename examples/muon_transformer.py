"""A transformer that learns to write Python, by AdamW, by torch.optim.Muon and by matsign.optim.Muon.

The text is the source of Python's own standard library, character by character; the loss is the cross entropy of the next
character, in bits, on modules that were not learnt from. Every optimiser starts from the same weights and sees the same
batches. Both Muons move the matrices inside the layers and leave embeddings, norms and the head to AdamW, at the same rates;
so they differ only in how the momentum is orthogonalised: five Newton-Schulz steps in bfloat16, one matrix at a time, or
four generated steps in float32 (on a GPU in float16), all matrices of one shape together.

A CPU without units for bfloat16 is slow to emulate it. So that the example ends, a run stops when it has had its share of
time; what is plotted over time is the time spent in training steps alone.

    python examples/muon_transformer.py --out muon.png
"""

from __future__ import annotations

import argparse
import sysconfig
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import nn

import matsign.optim

CHARACTERS = 128  # of ASCII


class Size(NamedTuple):
    """How large the model is, how long it learns, and how many seconds a run may take."""

    layers: int
    width: int
    heads: int
    context: int
    batch: int
    steps: int
    seconds: float


QUICK = Size(layers=2, width=32, heads=2, context=32, batch=8, steps=60, seconds=60)
DEFAULT = Size(layers=4, width=128, heads=4, context=64, batch=16, steps=250, seconds=35)
FULL = Size(layers=4, width=256, heads=4, context=256, batch=64, steps=3000, seconds=600)


def texts(limit=3_000_000):
    """(learnt from, kept back): modules of the standard library as numbers, every tenth kept back."""
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    parts = [], []
    for k, module in enumerate(modules):
        parts[k % 10 == 9].append(module.read_bytes())
    return [
        torch.frombuffer(bytearray(b"".join(part)[:limit]), dtype=torch.uint8).long() % CHARACTERS for part in parts
    ]


class Block(nn.Module):
    """Attention, then a perceptron, each beside a direct path."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x):
        y = self.before_attention(x)
        q, k, v = (f(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.before_perceptron(x))))


class Transformer(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.characters = nn.Embedding(CHARACTERS, size.width)
        self.places = nn.Embedding(size.context, size.width)
        self.blocks = nn.Sequential(*(Block(size.width, size.heads) for _ in range(size.layers)))
        self.norm, self.head = nn.LayerNorm(size.width), nn.Linear(size.width, CHARACTERS)

    def forward(self, x):
        x = self.characters(x) + self.places.weight[: x.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def bits(model, windows):
    """Cross entropy of the next character, in bits."""
    scores = model(windows[:, :-1])
    return nn.functional.cross_entropy(scores.flatten(0, 1), windows[:, 1:].flatten()) / np.log(2)


def adamw(matrices, rest):
    return [torch.optim.AdamW([*matrices, *rest], lr=4e-3, weight_decay=0.1)]  # the best of 5e-4, 1e-3, ... 8e-3


def torchs_muon(matrices, rest):
    return [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(rest, lr=2e-3, weight_decay=0.1)]


def our_muon(matrices, rest):
    groups = [{"params": matrices, "lr": 0.02}, {"params": rest, "lr": 2e-3, "algorithm": "adamw"}]
    return [matsign.optim.Muon(groups)]


OPTIMISERS = {"AdamW": adamw, "torch.optim.Muon": torchs_muon, "matsign.optim.Muon": our_muon}


class Run(NamedTuple):
    """What was seen of one run: after these steps and seconds of training this loss, and milliseconds per step by part."""

    steps: np.ndarray
    seconds: np.ndarray
    loss: np.ndarray
    model_ms: float
    optimiser_ms: float


def learn(build, size, data, device, seen, seed=0):
    """Train from the same start on the same batches; `seen(step, loss)` is called now and then."""
    torch.manual_seed(seed)
    model = Transformer(size).to(device)
    matrices = list(dict.fromkeys(p for p in model.blocks.parameters() if p.ndim == 2))
    chosen = {id(p) for p in matrices}
    optimisers = build(matrices, [p for p in model.parameters() if id(p) not in chosen])
    warm, last = size.steps // 20 + 1, size.steps // 2
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda k: min((k + 1) / warm, 1, (size.steps - k) / last))
        for o in optimisers
    ]
    batches, kept = windows(data[0], size, seed + 1), next(windows(data[1], size, 0, 8)).to(device)
    every, clock, spent, rows = max(size.steps // 25, 1), Clock(device), [0.0, 0.0], []
    for step in range(size.steps + 1):
        if step % every == 0 or sum(spent) > size.seconds:
            with torch.no_grad():
                rows.append((step, sum(spent), bits(model, kept).item()))
            seen(step, rows[-1][2])
        if step == size.steps or sum(spent) > size.seconds:
            break
        batch = next(batches).to(device)
        start = clock()
        for optimiser in optimisers:
            optimiser.zero_grad()
        bits(model, batch).backward()
        middle = clock()
        for optimiser, scheduler in zip(optimisers, schedulers, strict=True):
            optimiser.step()
            scheduler.step()
        spent = [spent[0] + middle - start, spent[1] + clock() - middle]
    return Run(*np.array(rows).T, *(1e3 * part / step for part in spent))


def windows(text, size, seed, times=1):
    """Random windows of the text, batch after batch."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        at = torch.randint(len(text) - size.context - 1, (size.batch * times, 1), generator=generator)
        yield text[at + torch.arange(size.context + 1)]


class Clock:
    """Seconds, once the device has done what it was asked."""

    def __init__(self, device):
        self.wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def __call__(self):
        self.wait()
        return time.perf_counter()


def picture(runs, size):
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    over_steps, over_time, parts = figure.subplots(1, 3, width_ratios=(1, 1, 0.8))
    colours = dict(zip(runs, ("#8a8a8a", "#e07b39", "#3b82c4"), strict=True))
    for name, run in runs.items():
        over_steps.plot(run.steps, run.loss, color=colours[name], lw=2, label=name)
        over_time.plot(run.seconds, run.loss, color=colours[name], lw=2, label=name)
    for k, (name, run) in enumerate(runs.items()):
        parts.barh(k, run.model_ms, color=colours[name], alpha=0.35)
        parts.barh(k, run.optimiser_ms, left=run.model_ms, color=colours[name])
        total = run.model_ms + run.optimiser_ms
        parts.annotate(f" {run.optimiser_ms:.1f} of {total:.1f} ms", (total, k), va="center", fontsize=8)
    over_steps.set(xlabel="step", ylabel="bits per character, modules kept back", title="Loss over steps")
    over_time.set(xlabel="seconds of training", title="Loss over time")
    if max(run.seconds[-1] for run in runs.values()) > 5 * min(run.seconds[-1] for run in runs.values()):
        over_time.set_xscale("log")
    for axes in (over_steps, over_time):  # the first steps, which are alike, need not be seen
        axes.set_ylim(top=2 * min(run.loss[-1] for run in runs.values()))
    parts.set(title="A step: model (pale) and optimiser", xlabel="milliseconds", yticks=range(len(runs)))
    parts.set_yticklabels(runs)
    parts.margins(x=0.35)
    parts.invert_yaxis()
    over_steps.legend(frameon=False)
    for axes in (over_steps, over_time, parts):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    figure.suptitle(f"{size.layers} layers of width {size.width} on Python's standard library", fontsize=10)
    return figure


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model and few steps")
    parser.add_argument("--full", action="store_true", help="width 256 and 3000 steps, for a GPU")
    parser.add_argument("--out", default="muon_transformer.png", help="where the picture goes")
    chosen = parser.parse_args(arguments)
    size = QUICK if chosen.quick else FULL if chosen.full else DEFAULT
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data, runs = texts(), {}
    known = {
        name: build for name, build in OPTIMISERS.items() if name != "torch.optim.Muon" or hasattr(torch.optim, "Muon")
    }
    columns = (TextColumn("{task.description:20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[loss]}")) as progress:
        for name, build in known.items():
            task = progress.add_task(name, total=size.steps, loss="")
            runs[name] = learn(
                build,
                size,
                data,
                device,
                lambda step, loss, task=task: progress.update(task, completed=step, loss=f"{loss:.3f} bits"),
            )
    for name, run in runs.items():
        print(
            f"{name:20} {run.loss[-1]:.3f} bits after {run.steps[-1]:.0f} steps, {run.seconds[-1]:.1f} s; "
            f"a step {run.model_ms:.1f} ms in the model, {run.optimiser_ms:.1f} ms in the optimiser"
        )
    picture(runs, size).savefig(chosen.out, dpi=100)
    print("picture:", chosen.out)
    return runs


if __name__ == "__main__":
    main()
