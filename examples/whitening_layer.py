"""A layer that whitens, and what its derivative is good for: learning from unlabelled text without collapse.

Batch norm gives every feature of a batch mean 0 and variance 1. The layer here gives the batch covariance 1,

    y = (x - mean) invsqrtm(covariance + eps),

the whitening that moves x least (ZCA), and learning goes through the inverse square root. A running mean and covariance
stand in when it evaluates.

The data are real and at hand wherever Python is: windows of 512 characters of the standard library's source, seen only
through how often each character occurs. A small network learns 16 features of a window, with no labels: its loss is how
far the features of two neighbouring windows of a file are from each other. The easy way to a small loss is to say
nothing. Without a normalisation all features shrink to a constant. Batch norm forbids that, so all 16 become one and
the same feature. Whitening forbids that too (Ermolov et al. 2021): 16 uncorrelated features that change slowly through a text.
It needs the derivative: cut off from the gradient of the whitening matrix, the features collapse as well.

The picture shows, over the epochs and for three seeds, the loss (whitening ends with the largest: it alone cannot
cheat), how many dimensions the features fill, and how well a linear classifier tells from them which package a window
is from, on files that nothing was learnt from; beside it the same classifier on all 95 frequencies and on their 16
principal components, and the share of the largest class. The accuracies depend on the
version of Python, whose source is the data; that whitening is ahead was so with the source of 3.11, 3.12 and 3.13.

    python examples/whitening_layer.py --out whitening.png
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

import matsign

PACKAGES = ("asyncio", "email", "unittest", "xml", "multiprocessing", "importlib", "http", "logging")
WINDOW, FEATURES = 512, 16


class Whitening(nn.Module):
    """Mean 0 and covariance 1 of a batch (count, width); `cut_off` leaves out the derivative of the whitening matrix."""

    def __init__(self, width, momentum=0.1, eps=1e-3, cut_off=False):
        super().__init__()
        self.momentum, self.eps, self.cut_off = momentum, eps, cut_off
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("covariance", torch.eye(width))

    def forward(self, x):
        mean, covariance = self.mean, self.covariance
        if self.training:
            mean = x.mean(0)
            covariance = (x - mean).mT @ (x - mean) / len(x)
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.covariance.lerp_(covariance, self.momentum)
        if self.cut_off:
            covariance = covariance.detach()
        eps = self.eps * covariance.diagonal().mean()
        return (x - mean) @ matsign.invsqrtm(covariance + eps * torch.eye(len(mean)))


NORMALISATIONS = {
    "none": lambda width: nn.Identity(),
    "batch norm": lambda width: nn.BatchNorm1d(width, affine=False),
    "whitening": Whitening,
    "whitening, cut off": lambda width: Whitening(width, cut_off=True),
}


class Windows(NamedTuple):
    """Windows of text: their features (count, 95), the package and the file that each is from."""

    x: torch.Tensor
    package: torch.Tensor
    file: torch.Tensor


def read(part):
    """Square roots of the counts of the 95 printable characters, in every third file ("test") or in the others."""
    x, package, file = [], [], []
    for label, name in enumerate(PACKAGES):
        folder = Path(importlib.util.find_spec(name).submodule_search_locations[0])
        for k, path in enumerate(sorted(folder.rglob("*.py"))):
            if (part == "test") == (k % 3 == 2):
                codes = np.frombuffer(path.read_bytes(), np.uint8)
                codes = codes[: len(codes) // WINDOW * WINDOW].reshape(-1, WINDOW, 1)
                x.append(np.sqrt((codes == np.arange(32, 127, dtype=np.uint8)).sum(1)))
                package.append(np.full(len(codes), label))
                file.append(np.full(len(codes), 1000 * label + k))
    return Windows(
        torch.from_numpy(np.concatenate(x)).float(), *(torch.from_numpy(np.concatenate(y)) for y in (package, file))
    )


def centred(train, test):
    """Both with the mean of the training windows at 0, and their mean variance 1."""
    mean, spread = train.x.mean(0), train.x.var(0).mean().sqrt()
    return tuple(part._replace(x=(part.x - mean) / spread) for part in (train, test))


def accuracy(train, test, features):
    """Of a linear least-squares classifier, trained on the features of one part and tested on the other."""
    x, x_test = (features(part.x) for part in (train, test))
    mean, size = x.mean(0), (x - x.mean(0)).norm() / len(x) ** 0.5 + 1e-30
    x, x_test = (torch.cat([(y - mean) / size, torch.ones(len(y), 1)], 1).double() for y in (x, x_test))
    wanted = nn.functional.one_hot(train.package).double()
    coefficients = torch.linalg.solve(x.mT @ x + 1e-3 * len(x) * torch.eye(x.shape[1]), x.mT @ wanted)
    return ((x_test @ coefficients).argmax(1) == test.package).double().mean().item()


def dimensions(y):
    """How many dimensions points fill: the exponential of the entropy of their variances along the principal axes."""
    variances = torch.linalg.eigvalsh(y.double().mT.cov()).clamp(min=1e-300)
    shares = variances / variances.sum()
    return (-(shares * shares.log()).sum()).exp().item()


def learn(kind, train, test, epochs, seed, batch=256):
    """After 0, 1, ... epochs: the mean loss of the last epoch, and on the test files dimensions and accuracy."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(95, 128), nn.ReLU(), nn.Linear(128, FEATURES), NORMALISATIONS[kind](FEATURES))
    minimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    neighbours = torch.nonzero(train.file[1:] == train.file[:-1])[:, 0]
    curve = []
    for epoch in range(epochs + 1):
        model.train()
        losses = []
        for at in neighbours[torch.randperm(len(neighbours))].split(batch)[:-1]:  # the last one is short
            first, second = model(train.x[torch.cat([at, at + 1])]).chunk(2)
            loss = ((first - second) ** 2).mean()
            losses.append(loss.item())
            if epoch > 0:
                minimiser.zero_grad()
                loss.backward()
                minimiser.step()
        model.eval()
        with torch.no_grad():
            curve.append((np.mean(losses), dimensions(model(test.x)), accuracy(train, test, model)))
    return np.array(curve)


def references(train, test):
    """The accuracy without learning features: {what: accuracy}."""
    axes = torch.linalg.svd(train.x, full_matrices=False).Vh[:FEATURES].mT
    return {
        "all 95 frequencies": accuracy(train, test, lambda x: x),
        f"{FEATURES} principal components": accuracy(train, test, lambda x: x @ axes),
        "largest class": (test.package == train.package.mode().values).double().mean().item(),
    }


def picture(curves, levels):
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels = figure.subplots(1, 3)
    colours = dict(zip(NORMALISATIONS, ("#8a8a8a", "#3b82c4", "#e07b39", "#2f9e77"), strict=True))
    epochs = len(curves["none"][0]) - 1
    titles = ("Distance of neighbouring windows", f"Dimensions filled, of {FEATURES}", "Which package? Test accuracy")
    for k, (axes, title) in enumerate(zip(panels, titles, strict=True)):
        for kind, runs in curves.items():
            axes.plot(runs[:, :, k].T, color=colours[kind], alpha=0.35, lw=1)
            axes.plot(runs[:, :, k].mean(0), color=colours[kind], lw=2, label=kind)
        axes.set(xlabel="epoch", title=title)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    panels[0].set(yscale="log", ylabel="loss: mean square distance")
    panels[1].set(ylabel="effective rank of the features, test files", ylim=(0, FEATURES + 1))
    panels[2].set(ylabel="share of windows")
    panels[0].legend(frameon=False, fontsize=8, loc="lower left")
    for name, level in levels.items():
        panels[2].axhline(level, color="#222222", ls=":", lw=1)
        panels[2].annotate(name, (epochs, level), (0, 2), "data", "offset points", ha="right", fontsize=8)
    return figure


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed and fewer epochs")
    parser.add_argument("--out", default="whitening_layer.png", help="where the picture goes")
    chosen = parser.parse_args(arguments)
    seeds, epochs = (1, 12) if chosen.quick else (3, 40)
    parts = centred(read("train"), read("test"))
    print(f"{len(parts[0].x)} windows to learn from, {len(parts[1].x)} to test on")
    levels = references(*parts)
    for name, level in levels.items():
        print(f"{name:24} accuracy {level:.3f}")
    curves = {}
    for kind in NORMALISATIONS:
        curves[kind] = np.stack([learn(kind, *parts, epochs, seed) for seed in range(seeds)])
        loss, rank, right = curves[kind][:, -1].mean(0)
        print(f"{kind:24} accuracy {right:.3f}   loss {loss:.1e}   {rank:.1f} dimensions")
    picture(curves, levels).savefig(chosen.out, dpi=100)
    print("picture:", chosen.out)
    return curves, levels


if __name__ == "__main__":
    main()
