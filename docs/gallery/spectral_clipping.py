"""An image with noise, its singular values thresholded, clipped, and all made equal."""

import numpy as np
from matplotlib import pyplot as plt

from matsign import mclip, msign, soft_threshold

y, x = np.mgrid[0:1:160j, 0:1.5:240j]
sky = 0.9 - 0.5 * y + 0.6 * np.exp(-((x - 1.1) ** 2 + (y - 0.25) ** 2) / 0.006)
image = sky
for height, steepness, shade in ((0.5, 9, 0.42), (0.66, 6, 0.26), (0.82, 13, 0.1)):
    ridge = height + 0.07 * np.sin(steepness * x) + 0.03 * np.sin(2.7 * steepness * x + 1)
    image = np.where(y > ridge, shade + 0.15 * (y - ridge), image)
noisy = image + 0.05 * np.random.default_rng(0).standard_normal(image.shape)

pictures = {
    "image with noise": noisy,
    "soft_threshold(M, 1.2)": soft_threshold(noisy, 1.2),
    "mclip(M, upper=2)": mclip(noisy, upper=2.0),
    "msign(M)": msign(noisy),
}
figure, grid = plt.subplot_mosaic([[0, 1], [2, 3], ["s", "s"]], figsize=(5.2, 6.2))
for k, (title, picture) in enumerate(pictures.items()):
    low, high = np.quantile(picture, [0.01, 0.99])
    grid[k].imshow(picture, cmap="gray", vmin=low, vmax=high)
    grid[k].set(title=title, xticks=[], yticks=[])
    grid[k].spines[:].set_visible(False)
    values = np.linalg.svd(picture, compute_uv=False)
    grid["s"].loglog(np.arange(1, 161), np.maximum(values, 1e-3), ["-", "--", "-.", ":"][k], label=title)
grid["s"].set(xlabel="number of the singular value", ylabel="size", ylim=(0.08, 200))
figure.legend(*grid["s"].get_legend_handles_labels(), loc="outside lower center", ncols=2)
