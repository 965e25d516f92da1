"""Density matrices of a honeycomb lattice, without and with a gap: the row of one atom, and the decay with the distance."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection

from matsign import spectral_projector

i, j = np.divmod(np.arange(18 * 18), 18)
corners = i[:, None] * [1.5, np.sqrt(3) / 2] + j[:, None] * [1.5, -np.sqrt(3) / 2]
atoms = np.concatenate([corners, corners + np.array([1.0, 0.0])])  # carbon atoms, at distance 1 from their neighbours
atoms -= atoms.mean(0)
distance = np.linalg.norm(atoms[:, None] - atoms, axis=-1)
hopping = -1.0 * (abs(distance - 1) < 1e-6)
side = np.repeat([1.0, -1.0], len(corners))
centre = np.argmin(np.linalg.norm(atoms + np.array([0.5, 0.0]), axis=1))

figure, grid = plt.subplot_mosaic([[0, 1], ["d", "d"]], figsize=(5.2, 5.0), height_ratios=[1, 0.9])
for k, (gap, title) in enumerate(((0.02, "no gap: graphene"), (2.0, "a gap of 2 hoppings"))):
    P = spectral_projector(hopping + np.diag(gap / 2 * side), half_plane="left")
    row, away = P[centre], distance[centre]
    near = away < 6.3
    bonds = atoms[np.argwhere(np.triu((hopping != 0) & np.outer(near, near)))]
    grid[k].add_collection(LineCollection(bonds, color="C4", linewidth=0.6, alpha=0.6))
    grid[k].scatter(*atoms[near].T, s=170 * abs(row[near]) ** 0.5, color=np.where(row[near] > 0, "C0", "C1"), zorder=2)
    grid[k].set(title=title, aspect="equal", xticks=[], yticks=[])
    grid[k].spines[:].set_visible(False)
    shells = np.unique(away[(away > 0) & (away < 12)].round(3))
    largest = [abs(row[abs(away - r) < 0.01]).max() for r in shells]
    largest = np.maximum.accumulate(largest[::-1])[::-1]  # the largest at this distance or farther
    grid["d"].semilogy(shells, largest, ["o-", "s-"][k], markersize=3, label=title)
grid["d"].set(xlabel="distance, in bonds", ylabel="largest |P| from there on", xlim=(0, 12))
grid["d"].legend()
