"""msign of the momenta of one device: from starts for groups with `warm`, and of all others by few calls."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch  # noqa: TID251

from matsign.backends.torch import values_unread
from matsign.optim.batching import msign_batched
from matsign.optim.groups import choice_of
from matsign.optim.updates import Updates
from matsign.optim.warm_momenta import States, warm_signs

Tensor = torch.Tensor


def signs_of(updates: Sequence[Updates], states: States, capturable: bool) -> list[list[list[Tensor]]]:
    """msign of the stacks of each parameter of each update."""
    warm = [warm_signs(update, states) for update in updates]
    stacks, how = [], []
    for update, known in zip(updates, warm, strict=True):
        others = [u for k, u in enumerate(update.momenta) if k not in known]
        stacks += [x for u in others for x in update.layout.matrices(u)]
        how += [choice_of(update.group)] * (len(others) * update.layout.stacks)
    with values_unread(capturable):
        signs = iter(msign_batched(stacks, how))
    return [
        [
            known[k] if k in known else list(itertools.islice(signs, update.layout.stacks))
            for k in range(len(update.params))
        ]
        for update, known in zip(updates, warm, strict=True)
    ]
