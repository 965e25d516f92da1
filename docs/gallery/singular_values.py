"""Singular values of a random matrix after k steps of msign."""

import numpy as np
from matplotlib import pyplot as plt

from matsign import msign

M = np.random.default_rng(0).standard_normal((40, 40))
M /= np.linalg.norm(M)
values = [np.linalg.svd(msign(M, steps=k), compute_uv=False) for k in range(1, 8)]

figure, axes = plt.subplots()
axes.semilogy(range(1, 8), values, "o-", markersize=3)
axes.set(xlabel="steps", ylabel="singular values")
