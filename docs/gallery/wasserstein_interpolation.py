"""Ellipses of Gaussians on the way from A to B: by optimal transport, and by the mean of the entries."""

import numpy as np
from matplotlib import pyplot as plt

from matsign import coupled_root, sqrtm

turn = np.array([[np.cos(1.2), -np.sin(1.2)], [np.sin(1.2), np.cos(1.2)]])
A = np.diag([1.0, 0.02])
B = turn @ A @ turn.T
T, _ = coupled_root(B, A)  # T A T = B

circle = np.exp(1j * np.linspace(0, 2 * np.pi, 200))
circle = np.stack([circle.real, circle.imag])
times = np.linspace(0, 1, 7)
ways = {
    "optimal transport": lambda t: ((1 - t) * np.eye(2) + t * T) @ A @ ((1 - t) * np.eye(2) + t * T),
    "mean of the entries": lambda t: (1 - t) * A + t * B,
}

figure, axes = plt.subplots(2, 1, figsize=(5.2, 3.2))
for ax, (title, covariance) in zip(axes, ways.items(), strict=True):
    for t in times:
        ellipse = sqrtm(covariance(t)) @ circle
        shade = plt.cm.viridis(0.25 + 0.6 * t)
        ax.fill(ellipse[0] + 13 * t, ellipse[1], facecolor=(*shade[:3], 0.35), edgecolor=shade, linewidth=1.5)
    ax.set(title=title, aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
