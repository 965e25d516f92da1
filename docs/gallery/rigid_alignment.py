"""Two measurements of one body, before and after the best rotation between them."""

import numpy as np
from matplotlib import pyplot as plt

from matsign import msign

s = np.linspace(0, 2 * np.pi, 60, endpoint=False)
knot = np.stack([np.sin(s) + 2 * np.sin(2 * s), np.cos(s) - 2 * np.cos(2 * s), -np.sin(3 * s)], axis=1)  # a trefoil
rng = np.random.default_rng(8)
turn = msign(rng.standard_normal((3, 3)))
turn *= np.linalg.det(turn)
moved = knot @ turn + [1.5, 1.0, 0.0] + 0.08 * rng.standard_normal(knot.shape)

p, q = moved - moved.mean(0), knot - knot.mean(0)
rotation = msign(p.T @ q)  # its determinant is +1 here
aligned = p @ rotation + knot.mean(0)

figure, axes = plt.subplots(1, 2, figsize=(5.2, 3.1), sharex=True, sharey=True)
for ax, points, title in zip(axes, (moved, aligned), ("before", "after msign(pᵀ q)"), strict=True):
    for one, other in zip(knot, points, strict=True):
        ax.plot(*zip(one[:2], other[:2], strict=True), color="C4", linewidth=0.5, alpha=0.7)
    ax.plot(*knot[:, :2].T, "o", markersize=4, label="first measurement")
    ax.plot(*points[:, :2].T, "^", markersize=4, label="second")
    rms = np.sqrt(np.mean(np.sum((points - knot) ** 2, axis=1)))
    ax.set(title=f"{title}\nroot mean square {rms:.2f}", aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
