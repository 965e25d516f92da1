"""The poles of 10 000 regulators: 40 loads times 250 weights of control, in one call."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap

from matsign import lqr

loads, weights = np.geomspace(0.3, 4, 40), np.geomspace(1e-6, 1e4, 250)

# Three carts in a row, joined by springs and dampers. The force moves the first; the last one carries the load.
joints = np.array([[1, -1, 0], [-1, 2, -1], [0, -1, 1]])
masses = np.stack([np.ones(40), np.ones(40), loads], -1)[..., None]
a = np.zeros((40, 1, 6, 6))
a[..., :3, 3:] = np.eye(3)
a[:, 0, 3:, :3], a[:, 0, 3:, 3:] = -4 * joints / masses, -0.1 * joints / masses
b = np.array([[0, 0, 0, 1.0, 0, 0]]).T
q = np.diag([0, 0, 1.0, 0, 0, 0])  # the distance of the last cart from its place
poles = lqr(a, b, q, weights[:, None, None]).poles  # (40, 250, 6)

figure, axes = plt.subplots(figsize=(5.2, 4.4), dpi=250)
colors = LinearSegmentedColormap.from_list("weights", ["C1", "C3", "C0"])
level = np.broadcast_to(np.log10(weights)[:, None], poles.shape)
dots = axes.scatter(poles.real, poles.imag, 1.5, level, cmap=colors, linewidths=0, rasterized=True)
figure.colorbar(dots, label="log₁₀ of the weight r of the force")
axes.set(xlabel="real part", ylabel="imaginary part", ylim=(0, None))
