"""Time against size on one thread, from the measurements in benchmarks/results, with the slopes of the largest sizes."""

import json
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

results = Path(__file__).parents[2] / "benchmarks/results/cpu_one_thread.json"
rows = json.loads(results.read_text())["rows"]
functions = {"Sylvester equation": "solve_sylvester, separable", "square root": "sqrtm, SPD"}


def slope(n, t):
    """The exponent k of t ~ nᵏ, fitted to the four largest sizes."""
    return np.polyfit(np.log(n[-4:]), np.log(t[-4:]), 1)[0]


figure, panels = plt.subplots(1, 2, sharey=True, figsize=(4.4, 3.6))
for axes, (title, name) in zip(panels, functions.items(), strict=True):
    measured = [row for row in rows if row["function"] == name and row["size"].isdigit()]
    n = np.array([int(row["size"]) for row in measured])
    for key, label, mark in (("scipy", "SciPy", "s--"), ("ours", "matsign", "o-")):
        t = np.array([row[key] for row in measured])
        axes.loglog(n, t, mark, label=f"{label}, slope {slope(n, t):.1f}", markersize=3)
    axes.minorticks_off()
    axes.set(title=title, xlabel="size n", ylim=(1e-6, 1e3), yticks=[1e-6, 1e-3, 1, 1000])
    axes.set_xticks([10, 100, 1000], labels=["10", "100", "1000"])
    axes.legend(loc="upper left", handlelength=1.2, borderaxespad=0.1)
panels[0].set_ylabel("seconds")
panels[0].set_yticks([1e-6, 1e-3, 1, 1000], labels=["1 µs", "1 ms", "1 s", "1000 s"])
