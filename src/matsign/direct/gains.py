"""Gains of models at given frequencies, and their derivatives with respect to the frequency.

With R = (s e - a)⁻¹ and s a function of ω, G = c R b + d has the derivatives G' = -s' c R e R b and G'' = 2 s'² c R e R e R b -
s'' c R e R b.
The largest singular value σ, with the singular vectors u and v, has the slope α = Re uᴴ G' v and the curvature

    Re uᴴ G'' v + Im(uᴴ G' v)²/σ + Σ |α_k + β_k|²/2(σ - σ_k) + |α_k - β_k|²/2(σ + σ_k) + (‖r‖² + ‖t‖²)/σ,

α_k = u_kᴴ G' v, β_k = v_kᴴ G'ᴴ u over the other singular vectors, r and t being what is left of G' v and G'ᴴ u: σ is the largest
eigenvalue of [[0, G], [Gᴴ, 0]].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from matsign._typing import NDArray as Array
from matsign.backends import numpy as backend

_ENTRIES = 1 << 21  # of the matrices s e - a in one call


class Model(NamedTuple):
    """Stacks of models; the axis of frequencies is the unit circle if `discrete`. No e stands for I."""

    a: Array
    b: Array
    c: Array
    d: Array
    e: Array | None
    discrete: bool

    def take(self, members: Array) -> Model:
        e = None if self.e is None else self.e[members]
        return Model(self.a[members], self.b[members], self.c[members], self.d[members], e, self.discrete)

    def at(self, frequency: Array) -> Array:
        """The points s of the axis."""
        return np.exp(1j * frequency) if self.discrete else 1j * frequency

    def pencil(self, s: Array) -> Array:
        """s e - a."""
        return s[:, None, None] * (np.eye(self.a.shape[-1]) if self.e is None else self.e) - self.a

    def times_e(self, x: Array) -> Array:
        """e x."""
        return x if self.e is None else self.e @ x


def gains(m: Model, members: Array, frequency: Array) -> tuple[Array, Array]:
    """(gain, rounding error in it) for each pair of a member and a frequency, which may be infinite."""
    gain, noise = np.empty(len(members)), np.empty(len(members))
    count = max(1, _ENTRIES // m.a[0].size)
    for start in range(0, len(members), count):
        part = slice(start, start + count)
        gain[part], noise[part] = _gains(m.take(members[part]), frequency[part])
    return gain, noise


def _gains(m: Model, frequency: Array) -> tuple[Array, Array]:
    finite = np.isfinite(frequency)
    x = backend.solve(m.pencil(m.at(np.where(finite, frequency, 0))), m.b.astype(complex))
    x = np.where(finite[:, None, None], x, 0)
    g = m.c @ x + m.d
    known = np.isfinite(g).all((1, 2))
    gain = backend.svd(np.where(known[:, None, None], g, 0))[1][:, 0]
    sizes = [np.linalg.norm(y, axis=(1, 2)) for y in (m.c, x, m.d)]
    noise = np.finfo(float).eps * (np.sqrt(m.a.shape[-1]) * sizes[0] * sizes[1] + sizes[2])
    return np.where(known, gain, -1.0), np.where(known, noise, 0.0)


def derivatives(m: Model, frequency: Array) -> tuple[Array, Array]:
    """(slope, curvature) of the gain; NaN where the largest singular value is multiple."""
    inverse = backend.inv(m.pencil(m.at(frequency)))
    first = inverse @ m.b
    second = inverse @ m.times_e(first)
    cr2b, cr3b = m.c @ second, m.c @ (inverse @ m.times_e(second))
    ds = (1j * np.exp(1j * frequency) if m.discrete else 1j + 0 * frequency)[:, None, None]
    dds = ds * 1j if m.discrete else 0 * ds
    g, dg, ddg = m.c @ first + m.d, -ds * cr2b, 2 * ds**2 * cr3b - dds * cr2b
    known = (np.isfinite(g) & np.isfinite(dg) & np.isfinite(ddg)).all((1, 2))
    g = np.where(known[:, None, None], g, 0)
    u, sigma, vh = backend.svd(g)
    v = vh.conj().mT
    with np.errstate(all="ignore"):
        return _largest_value(u, sigma, v, dg, ddg)


def _largest_value(u: Array, sigma: Array, v: Array, dg: Array, ddg: Array) -> tuple[Array, Array]:
    first_u, first_v, top = u[:, :, :1], v[:, :, :1], sigma[:, 0]
    moved_v, moved_u = dg @ first_v, dg.conj().mT @ first_u
    alpha, beta = (u.conj().mT @ moved_v)[:, :, 0], (v.conj().mT @ moved_u)[:, :, 0]
    bend = (first_u.conj().mT @ ddg @ first_v)[:, 0, 0].real + alpha[:, 0].imag ** 2 / top
    others = np.abs(alpha + beta) ** 2 / (2 * (top[:, None] - sigma)) + np.abs(alpha - beta) ** 2 / (
        2 * (top[:, None] + sigma)
    )
    left = np.linalg.norm(moved_v, axis=(1, 2)) ** 2 - np.linalg.norm(alpha, axis=1) ** 2
    left = left + np.linalg.norm(moved_u, axis=(1, 2)) ** 2 - np.linalg.norm(beta, axis=1) ** 2
    return alpha[:, 0].real, bend + others[:, 1:].sum(axis=1) + left / top
