"""Where Newton's method and a quintic polynomial send the eigenvalues of a matrix."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

STEPS = 30


def newton(x):
    return (x + 1 / x) / 2


def quintic(x):
    return (15 * x - 10 * x**3 + 3 * x**5) / 8


def basins(step, z):
    """A colour for 1, one for -1 and none for neither; the paler, the more steps it takes."""
    colours = np.zeros((*z.shape, 4))
    for k in range(STEPS):
        for target, name in ((1, "C0"), (-1, "C1")):
            arrived = (abs(z - target) < 0.1) & (colours[..., 3] == 0)
            colours[arrived] = (*to_rgb(name), 0.75 * 0.88**k + 0.05)
        z = step(z)
        z = np.where(abs(z) < 10, z, 10)  # from here the quintic only grows
    return colours


def path(step, eigenvalue):
    points = [eigenvalue]
    while len(points) < STEPS and abs(points[-1]) < 3:
        points.append(step(points[-1]))
    return np.array(points)


line = np.linspace(-2, 2, 240)  # has no 0
plane = line + 1j * line[:, None]
values = np.linalg.eigvals(np.random.default_rng(6).standard_normal((8, 8)) / 2.5)

figure, panels = plt.subplots(1, 2, figsize=(4.4, 2.7), sharey=True)
for axes, step, name in zip(panels, (newton, quintic), ("Newton's method", "quintic polynomial"), strict=True):
    axes.imshow(basins(step, plane), extent=(-2, 2, -2, 2), origin="lower")
    for value in values:
        points = path(step, value)
        axes.plot(points.real, points.imag, "-", color="C4", linewidth=1)
        axes.plot(value.real, value.imag, "o", color="C4", markersize=4)
    axes.plot([-1, 1], [0, 0], "P", color=plt.rcParams["text.color"], markersize=8)
    axes.set(title=name, xlabel="real part", xlim=(-2, 2), ylim=(-2, 2), xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    axes.grid(visible=False)
panels[0].set_ylabel("imaginary part")
