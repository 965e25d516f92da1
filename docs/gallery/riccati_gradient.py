"""Where should two actuators push a beam? Descent of the least cost of control, by gradients through a Riccati equation."""

import numpy as np
import torch
from matplotlib import pyplot as plt

from matsign import solve_continuous_are

MODES = torch.arange(1, 5, dtype=torch.float64)
UNIT, STIFFNESS = torch.eye(4, dtype=torch.float64), torch.diag(MODES**4)
A = torch.cat([torch.cat([0 * UNIT, UNIT], 1), torch.cat([-STIFFNESS, -0.02 * torch.diag(MODES**2)], 1)])
ENERGY = torch.block_diag(STIFFNESS, UNIT)


def least_cost(places):
    """∫ energy + |u|²/100 dt after a unit of energy in each of four modes of a beam; places (..., 2) between 0 and 1."""
    shapes = torch.sin(torch.pi * MODES[:, None] * places[..., None, :])
    b = torch.cat([0 * shapes, shapes], -2)
    x = solve_continuous_are(A, b, ENERGY, 0.01 * torch.eye(2, dtype=torch.float64))
    return (torch.linalg.inv(ENERGY) @ x).diagonal(dim1=-2, dim2=-1).sum(-1)


line = torch.linspace(0.02, 0.98, 41, dtype=torch.float64)
i, j = np.tril_indices(41)
landscape = np.empty((41, 41))
landscape[i, j] = landscape[j, i] = least_cost(torch.stack([line[j], line[i]], -1)).log10()  # 861 equations in one call

first = [0.3, 0.44, 0.06, 0.1, 0.7, 0.64, 0.9, 0.5]
second = [0.36, 0.56, 0.94, 0.2, 0.8, 0.52, 0.7, 0.06]
path = [torch.tensor([first, second]).mT.double()]
for _ in range(24):
    at = path[-1].requires_grad_()
    (slope,) = torch.autograd.grad(least_cost(at).log().sum(), at)
    path.append((at - 0.007 * slope).detach())
path = torch.stack(path).detach()

figure, axes = plt.subplots(figsize=(5.2, 4.4))
filled = axes.contourf(line, line, landscape, 24, cmap="viridis")
figure.colorbar(filled, label="log₁₀ of the least cost", format="%.1f")
axes.plot(*path.permute(2, 0, 1), color="white")
axes.plot(*path[0].T, "o", color="white", markersize=4)
axes.plot(*path[-1].T, "*", color="white", markeredgecolor="black", markersize=12)
axes.set(xlabel="place of one actuator", ylabel="place of the other", aspect="equal")
axes.grid(False)
