"""Optimisers that use msign: `Muon` for PyTorch, with `param_groups` that makes its groups; for JAX `scale_by_msign`, and
`muon_on_manifold` for weights on manifolds, with `param_labels` that says which parameters it takes, and `MatrixAxes`.

Each is imported at its first use, so that either works without the other's library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matsign.optim.assignment import param_groups
    from matsign.optim.labels import param_labels
    from matsign.optim.matrix_axes import MatrixAxes
    from matsign.optim.muon import Muon
    from matsign.optim.optax import scale_by_msign
    from matsign.optim.optax_manifolds import muon_on_manifold

__all__ = [
    "MatrixAxes",
    "Muon",
    "muon_on_manifold",
    "param_groups",
    "param_labels",
    "scale_by_msign",
]

_HOMES = {
    "MatrixAxes": "matsign.optim.matrix_axes",
    "Muon": "matsign.optim.muon",
    "muon_on_manifold": "matsign.optim.optax_manifolds",
    "param_groups": "matsign.optim.assignment",
    "param_labels": "matsign.optim.labels",
    "scale_by_msign": "matsign.optim.optax",
}


if not TYPE_CHECKING:  # else a type checker would take any name for an attribute

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
