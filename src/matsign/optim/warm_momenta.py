"""`Muon(warm=True)`: which momenta start from singular vectors of earlier ones, and their msign.

A parameter tries it when its momentum has moved by little in the last step, and goes on as long as most of its matrices are near
enough to their starts. Where they are not, it pauses for 2ᵏ steps, with k one larger each time. So it costs little where
momenta move fast.
"""

from __future__ import annotations

import functools
from collections.abc import MutableMapping
from typing import Any, NamedTuple

import torch  # noqa: TID251

from matsign import backends
from matsign.linalg.stacks import scale_to_unit
from matsign.optim.batching import LARGEST_ON_CPU, Layout, MsignConfig, orthogonalise
from matsign.optim.groups import Group, choice_of, is_warm
from matsign.optim.updates import Updates
from matsign.optim.warm_steps import signs_from, singular_vectors

Tensor = torch.Tensor
States = MutableMapping[Tensor, dict[str, Any]]

# The motion of a momentum in a step, relative to its norm, above which no start is near enough.
_FAST = 0.05
# A pause after failures is at least 2**4 and at most 2**8 steps, and one after a look at the motion at most 2**3.
_SHORTEST, _LONGEST, _LONGEST_OF_LOOKS = 4, 8, 3
# From this size of matrices that are nearly square, a step from a start takes less time than one without.
_SMALLEST_SIDE, _LARGEST_RATIO = 128, 1.5
# What a step near enough to its start counts, one that is not, and the first one; a score is at most the last number.
_SUCCESS, _FAILURE, _FIRST, _MOST = 1, 2, 1, 4


class Record(NamedTuple):
    """How the starts of a parameter did: steps to wait, the exponent of the next pause, and successes less twice the failures."""

    wait: int = 0
    pause: int = 0
    score: int = 0

    def after(self, change: int) -> Record:
        score = min(self.score + change, _MOST)
        if score < -_FAILURE:
            return self.pause_for(max(self.pause, _SHORTEST))
        return Record(0, 0 if score == _MOST else self.pause, score)

    def pause_for(self, exponent: int) -> Record:
        return Record(2**exponent, min(exponent + 1, _LONGEST), 0)


def warm_signs(update: Updates, states: States) -> dict[int, list[Tensor]]:
    """msign of the momenta of a group that follow a start, by the position of their parameter."""
    trying = _trying(update, states) if is_warm(update.group) else []
    stacks: dict[int, list[Tensor]] = {k: update.layout.matrices(update.momenta[k]) for k in trying}
    starts = {k: _read_starts(states[update.params[k]], stacks[k]) for k in trying}
    jobs = [(k, j) for k in trying for j in range(len(stacks[k]))]
    done = _follow(jobs, stacks, starts, choice_of(update.group))
    for k in trying:
        _write(states[update.params[k]], [done[k, j] for j in range(len(stacks[k]))])
    return {k: [done[k, j].value for j in range(len(stacks[k]))] for k in trying}


def forget_starts(groups: list[Group], states: States) -> None:
    """Drop loaded starts of parameters whose group has no `warm`."""
    for group in groups:
        for p in group["params"] if not is_warm(group) else ():
            for name in ("singular_vectors", "warm"):
                states.get(p, {}).pop(name, None)


class Followed(NamedTuple):
    """msign of a stack, its start for the next step, and how many of its matrices were near enough to their starts."""

    value: Tensor
    start: Tensor
    successes: int


def _trying(update: Updates, states: States) -> list[int]:
    """The parameters that follow a start, or look for one as their momenta have moved by little."""
    found, looking = [], []
    for k, p in enumerate(update.params):
        if p.device.type != "cpu" or not _is_worth(update.layout, p.shape):
            continue
        record = Record(*states[p].get("warm", ()))
        if record.wait > 0:
            states[p]["warm"] = [*record._replace(wait=record.wait - 1)]
        elif "singular_vectors" in states[p]:
            found.append(k)
        else:
            looking.append(k)
    for k, motion in zip(looking, _motions(update, states, looking), strict=True):
        if motion < _FAST:
            found.append(k)
        else:
            record = Record(*states[update.params[k]].get("warm", ()))
            states[update.params[k]]["warm"] = [*record.pause_for(min(record.pause, _LONGEST_OF_LOOKS))]
    return sorted(found)


@functools.lru_cache(maxsize=1024)
def _is_worth(layout: Layout, shape: torch.Size) -> bool:
    """Whether a step from a start is faster for all matrices of a parameter."""
    sides = [one[1:] for one in layout.shapes(shape)]
    return all(min(one) >= _SMALLEST_SIDE and max(one) <= _LARGEST_RATIO * min(one) for one in sides)


def _motions(update: Updates, states: States, members: list[int]) -> list[float]:
    """About how far momenta have moved in this step, relative to their norms: NaN if they are zero or not finite."""
    if not members:
        return []
    mu, sign = update.group["momentum"], -1.0 if update.group.get("maximize") else 1.0
    momenta = [states[update.params[k]]["momentum_buffer"] for k in members]
    gradients = [update.params[k].grad for k in members]
    moves = [torch.sub(m, g, alpha=sign) for m, g in zip(momenta, gradients, strict=True) if g is not None]
    norms = torch.stack([*torch._foreach_norm(moves), *torch._foreach_norm(momenta)]).double()
    return torch.nan_to_num((1 - mu) * norms[: len(moves)] / (mu * norms[len(moves) :]), nan=torch.inf).tolist()


def _read_starts(state: dict[str, Any], stacks: list[Tensor]) -> list[Tensor | None]:
    """The starts of the stacks of a parameter, none of them if there are none."""
    if "singular_vectors" not in state:
        return [None] * len(stacks)
    shapes = [_shape_of_start(x) for x in stacks]
    parts = torch.split(state["singular_vectors"], [shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def _shape_of_start(x: Tensor) -> torch.Size:
    return torch.Size((len(x), sum(x.shape[1:]), min(x.shape[1:])))


def _write(state: dict[str, Any], done: list[Followed]) -> None:
    """Keep the starts and what became of them."""
    count, successes = sum(len(one.value) for one in done), sum(one.successes for one in done)
    failed = _FAILURE if "singular_vectors" in state else _FIRST
    record = Record(*state.get("warm", ())).after(_SUCCESS if 2 * successes >= count else -failed)
    state["warm"] = [*record]
    if record.wait:
        state.pop("singular_vectors", None)
    else:
        state["singular_vectors"] = torch.cat([one.start.reshape(-1) for one in done])


Job = tuple[int, int]


def _follow(
    jobs: list[Job], stacks: dict[int, list[Tensor]], starts: dict[int, list[Tensor | None]], how: MsignConfig
) -> dict[Job, Followed]:
    """msign of stacks, those of equal shape together."""
    alike: dict[Any, list[list[Job]]] = {}
    for k, j in jobs:
        x = stacks[k][j]
        parts = alike.setdefault((x.shape[1:], x.dtype, starts[k][j] is None), [[]])
        if parts[-1] and sum(stacks[a][b].numel() for a, b in parts[-1]) + x.numel() > LARGEST_ON_CPU:
            parts.append([])
        parts[-1].append((k, j))
    done: dict[Job, Followed] = {}
    for part in (part for parts in alike.values() for part in parts):
        known = [start for k, j in part if (start := starts[k][j]) is not None]
        x = torch.cat([stacks[k][j] for k, j in part])
        wide = x.shape[1] < x.shape[2]
        value, start, near = _follow_stack(x.mH if wide else x, torch.cat(known) if known else None, how)
        lengths = [len(stacks[k][j]) for k, j in part]
        found = (torch.split(y, lengths) for y in (value.mH if wide else value, start, near))
        done |= {job: Followed(v, s, int(n.sum())) for job, v, s, n in zip(part, *found, strict=True)}
    return done


def _follow_stack(m: Tensor, start: Tensor | None, how: MsignConfig) -> tuple[Tensor, Tensor, Tensor]:
    """msign of tall matrices, their next starts, and whether each was near enough to its start; others begin anew."""
    finite = m.isfinite().all(-1).all(-1)
    x = torch.where(finite[:, None, None], m, 0).to(torch.promote_types(m.dtype, torch.float32))
    x = scale_to_unit(backends.load("torch"), x)[0]
    value, near, tol = torch.empty_like(x), torch.zeros(len(x), dtype=torch.bool), float(how.tol or 0)
    if start is None:
        start = x.new_zeros(_shape_of_start(x))
    else:
        value, start, near = signs_from(x, start.nan_to_num(0.0, 0.0, 0.0), tol)
    begin = ~near & finite
    certain = near.clone()
    if begin.any():
        value[begin], start[begin], certain[begin] = signs_from(x[begin], singular_vectors(x[begin]), tol)
    if not certain.all():
        value[~certain], start[~certain] = orthogonalise(m[~certain], how).to(x.dtype), 0
    return value.to(m.dtype), start, near
