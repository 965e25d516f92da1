"""The error of the best odd quintic on [0.1, 1], and the images of [0.01, 1] under a designed schedule."""

import numpy as np
from matplotlib import pyplot as plt

from matsign.iterations.minimax import minimax_quintic, polar_express

LOWER = 0.1
best, error = minimax_quintic(LOWER)
inner = np.sqrt(np.roots([5 * best.c, 3 * best.b, best.a]))  # where the derivative is zero
points = np.array([LOWER, *inner, 1.0])

figure, (upper, lower) = plt.subplots(2, 1, figsize=(4.4, 5.0))
x = np.linspace(LOWER, 1, 200)
upper.plot(x, best(x) - 1)
upper.plot(points, best(points) - 1, "o", color="C1")
for sign in (-1, 1):
    upper.axhline(sign * error, color="C1", linestyle="--", linewidth=1)
upper.set(title="error of the best quintic", xlabel="x", ylabel="p(x) − 1", ylim=(-0.8, 0.8))
upper.set_yticks([-error, 0, error], labels=[f"−{error:.2f}", "0", f"{error:.2f}"])

x = y = np.geomspace(0.01, 1, 400)
steps = polar_express(0.01, tol=0.01, eps=np.finfo(float).eps)
for k, step in enumerate(steps, start=1):
    y = step(y)
    if k % 2:
        lower.semilogx(x, y, label=f"{k} step{'s' * (k > 1)}")
lower.set(title="images under a schedule", xlabel="singular value", ylabel="image", ylim=(0, 2.5))
lower.set_xticks([0.01, 0.1, 1], labels=["0.01", "0.1", "1"])
lower.minorticks_off()
lower.legend(loc="upper center", ncols=3, columnspacing=1, handlelength=1.2)
