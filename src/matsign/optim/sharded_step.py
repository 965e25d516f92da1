"""The part of a step of Muon that is for sharded parameters: what they are, whether the processes agree, and their updates."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, NamedTuple

import torch  # noqa: TID251
from torch import distributed  # noqa: TID251
from torch.distributed.tensor import DTensor, Shard  # noqa: TID251

from matsign.optim.agreement import Opinion, agree, name_lost_ranks
from matsign.optim.batching import Layout, MsignConfig, adjustment_factor, orthogonalise
from matsign.optim.exchange import Exchange, Update, move_buckets
from matsign.optim.groups import Group, choice_of, layout_of, momentum_dtype_of, parameter_name, rate_on
from matsign.optim.owners import OWNED, OWNED_ON_CPU, Item, Sharded, plan_owners
from matsign.optim.sharding import describe_placements, holder_of, holders, is_sharded, local, sharding_of

Tensor = torch.Tensor
Ranks = tuple[int, ...]
# The shards of the momenta to step along, for parameters of a group.
Momenta = Callable[[Group, list[Tensor]], Sequence[Tensor]]
# Plans are kept for so many sets of parameters that have a gradient.
_KEPT = 16
# What a step depends on beside the lr of a group, and the layout and the choice that an `Item` has.
_OPTIONS = {
    "muon": ("weight_decay", "momentum", "nesterov", "adjust_lr_fn", "maximize"),
    "adamw": ("weight_decay", "betas", "eps", "amsgrad", "maximize"),
}


class Entry(NamedTuple):
    """A sharded parameter of an optimiser."""

    group: Group
    name: str
    parameter: DTensor
    item: Item
    options: str

    def describe(self) -> str:
        item = self.item
        matrices = f", {item.layout} and {item.how}" if self.under_muon else ""
        return (
            f"{self.name} has shape {item.sharding.shape}, momenta of {item.dtype}, placements "
            f"{describe_placements(item.sharding.placements)} on a mesh of shape {item.sharding.mesh} of the ranks "
            f"{list(item.sharding.ranks)}, {'a' if self.moves else 'no'} gradient, {self.options}{matrices}"
        )

    @property
    def under_muon(self) -> bool:
        return bool(self.group["algorithm"] == "muon")

    @property
    def moves(self) -> bool:
        return self.parameter.grad is not None


def entries_by_ranks(
    param_groups: Sequence[Group], states: MutableMapping[Tensor, dict[str, Any]]
) -> dict[Ranks, list[Entry]]:
    """The sharded parameters, by the ranks that they are spread over."""
    found: dict[Ranks, list[Entry]] = {}
    for index, group in enumerate(param_groups):
        if not any(map(is_sharded, group["params"])):
            continue
        options, (layout, how) = _options(group), (Layout(), MsignConfig())
        if group["algorithm"] == "muon":
            layout, how = layout_of(group), choice_of(group)
        for k, p in enumerate(group["params"]):
            if is_sharded(p):
                item = Item(sharding_of(p), layout, how, str(_momentum_dtype(group, p, states.get(p, {}))))
                entry = Entry(group, parameter_name(group, index, k), p, item, options)
                found.setdefault(tuple(sorted(item.sharding.ranks)), []).append(entry)
    return dict(sorted(found.items()))


def _options(group: Group) -> str:
    """The options of a group that processes must have in common; a learning rate on an accelerator is not read."""
    names = _OPTIONS[group["algorithm"]]
    values = {"lr": group["lr"], **{name: group.get(name, False) for name in names}}
    if isinstance(group["lr"], Tensor):
        values["lr"] = float(group["lr"]) if group["lr"].is_cpu else "a tensor"
    return ", ".join([group["algorithm"], *(f"{name}={value}" for name, value in values.items())])


def _momentum_dtype(group: Group, p: DTensor, state: dict[str, Any]) -> torch.dtype:
    """The dtype in which a step along the momentum of a parameter is computed."""
    gradient = p if p.grad is None else p.grad
    if group["algorithm"] == "adamw":
        return p.dtype
    kept = state["momentum_buffer"].dtype if "momentum_buffer" in state else momentum_dtype_of(group) or gradient.dtype
    return torch.promote_types(kept, gradient.dtype)


class ShardedStep:
    """Steps of the sharded parameters of an optimiser; keeps process groups and plans from one step to the next."""

    def __init__(self) -> None:
        self._groups: dict[Ranks, Any] = {}
        self._digests: dict[Any, bytes] = {}
        self._plans: dict[Any, tuple[list[Exchange], Sequence[Sharded]]] = {}

    def agree(self, found: dict[Ranks, list[Entry]], error: Exception | None) -> Exception | None:
        """The error that all processes have to raise, if one has an error or if their parameters differ.

        Where a process belongs to several sets of ranks, an error of one set must reach the others: those ask again, in reverse
        order.
        """
        if error is not None:
            error = type(error)(f"{error} (on rank {distributed.get_rank()})")
        again = []
        for ranks in found:
            error, elsewhere = self._agree_on(ranks, found, error)
            again += [ranks] if elsewhere else []
        for ranks in reversed(again):
            error, _ = self._agree_on(ranks, found, error)
        return error

    def _agree_on(
        self, ranks: Ranks, found: dict[Ranks, list[Entry]], error: Exception | None
    ) -> tuple[Exception | None, bool]:
        """The error so far, or that of a set of ranks; and whether one of them belongs to other sets, too."""
        entries = found[ranks]
        known = _look_up(self._digests, tuple((e.name, e.item, e.moves) for e in entries), _digest)
        digest = _digest((known, [entry.options for entry in entries]))
        mine = Opinion([entry.describe for entry in entries], digest, error, len(found) > 1)
        common, elsewhere = agree(self._group(ranks, entries[0]), local(entries[0].parameter).device, mine)
        return common or error, elsewhere

    def step(self, found: dict[Ranks, list[Entry]], momenta: Momenta) -> None:
        """Update all parameters that have a gradient, bucket by bucket."""
        for ranks, entries in found.items():
            moving = [entry for entry in entries if entry.moves and entry.under_muon]
            if moving:
                self._move(self._group(ranks, moving[0]), moving, momenta)

    def _move(self, group: Any, moving: Sequence[Entry], momenta: Momenta) -> None:
        items = tuple(entry.item for entry in moving)
        on_cpu = local(moving[0].parameter).device.type == "cpu"

        def prepare(items: tuple[Item, ...]) -> tuple[list[Exchange], Sequence[Sharded]]:
            plan = plan_owners(items, OWNED_ON_CPU if on_cpu else OWNED)
            return [Exchange(bucket, items, group) for bucket in plan.buckets], plan.sharded

        exchanges, sharded = _look_up(self._plans, items, prepare)
        move_buckets(
            exchanges,
            lambda exchange: exchange.send(_shards(exchange.bucket.items, moving, momenta)),
            lambda exchange: _apply(exchange.bucket.items, exchange.updates(), moving),
        )
        for alike in sharded:
            shards = _shards(alike.items, moving, momenta)
            updates = name_lost_ranks(group, functools.partial(_in_place, alike, shards, moving[alike.items[0]]))
            _apply(alike.items, updates, moving)

    def _group(self, ranks: Ranks, entry: Entry) -> Any:
        """A process group of these ranks."""
        if ranks not in self._groups:
            mesh = entry.parameter.device_mesh
            if len(ranks) == distributed.get_world_size():
                self._groups[ranks] = distributed.group.WORLD
            elif mesh.ndim == 1:
                self._groups[ranks] = mesh.get_group()
            else:
                self._groups[ranks] = distributed.new_group(list(ranks), use_local_synchronization=True)
        return self._groups[ranks]


def _digest(known: Any) -> bytes:
    return hashlib.sha256(repr(known).encode()).digest()


def _look_up(cache: dict[Any, Any], key: Any, make: Callable[[Any], Any]) -> Any:
    """What is made of a key, kept in a cache that forgets what has not been used for long."""
    cache[key] = cache.pop(key) if key in cache else make(key)
    if len(cache) > _KEPT:
        del cache[next(iter(cache))]
    return cache[key]


def _shards(members: Sequence[int], moving: Sequence[Entry], momenta: Momenta) -> dict[int, Tensor]:
    """The momenta to step along of some parameters: the shards of this process, read as matrices."""
    shards: dict[int, Tensor] = {}
    for alike in _by_group(members, moving):
        found = momenta(moving[alike[0]].group, [moving[k].parameter for k in alike])
        shards |= {k: _as_matrices(x, moving[k].item) for k, x in zip(alike, found, strict=True)}
    return shards


def _by_group(members: Sequence[int], moving: Sequence[Entry]) -> list[list[int]]:
    """Some parameters, those of a group together."""
    together: dict[int, list[int]] = {}
    for k in members:
        together.setdefault(id(moving[k].group), []).append(k)
    return list(together.values())


def _as_matrices(shard: Tensor, item: Item) -> Tensor:
    """A shard as (count, outputs, inputs); a copy only if its strides have no view of this shape."""
    count, outputs, inputs = holder_of(holders(item.sharding, item.layout), distributed.get_rank()).holding.shape
    if item.layout.outputs_last:
        return shard.reshape((count, inputs, outputs)).mT
    return shard.reshape((count, outputs, inputs))


def _in_place(alike: Sharded, shards: dict[int, Tensor], first: Entry) -> list[Update]:
    """The updates of parameters, like the first one, whose matrices stay sharded along their long side."""
    ((count, outputs, inputs),) = first.item.layout.shapes(first.item.sharding.shape)
    x = DTensor.from_local(
        torch.cat([shards[k] for k in alike.items]),
        first.parameter.device_mesh,
        [Shard(alike.axis)],
        run_check=False,
        shape=torch.Size((count * len(shards), outputs, inputs)),
        stride=(outputs * inputs, inputs, 1),
    )
    signs = torch.split(orthogonalise(x, first.item.how).to_local(), count)
    everything = (slice(None), slice(None), slice(None))
    return [Update(k, (outputs, inputs), everything, sign) for k, sign in zip(alike.items, signs, strict=True)]


def _apply(members: Sequence[int], updates: Sequence[Update], moving: Sequence[Entry]) -> None:
    """Decay, then the step, for the shards of some parameters."""
    targets = {k: _as_matrices(local(moving[k].parameter), moving[k].item) for k in members}
    for alike in _by_group(members, moving):
        group = moving[alike[0]].group
        if group["weight_decay"]:
            rate = rate_on(group["lr"], targets[alike[0]].device)
            torch._foreach_mul_([targets[k] for k in alike], 1 - rate * group["weight_decay"])
    by_factor: dict[tuple[int, float], list[Update]] = {}
    for update in updates:
        group = moving[update.item].group
        factor = adjustment_factor(group["adjust_lr_fn"], *update.shape)
        by_factor.setdefault((id(group), factor), []).append(update)
    for (_, factor), some in by_factor.items():
        places = [targets[update.item][update.place] for update in some]
        _add(places, [update.sign for update in some], factor, moving[some[0].item].group["lr"])
    for k, target in targets.items():
        shard = local(moving[k].parameter)
        if target.data_ptr() != shard.data_ptr():
            shard.copy_(
                target.mT.reshape(shard.shape) if moving[k].item.layout.outputs_last else target.reshape(shard.shape)
            )


def _add(places: list[Tensor], signs: list[Tensor], factor: float, lr: float | Tensor) -> None:
    rate = rate_on(lr, signs[0].device)
    if isinstance(rate, Tensor):  # a rate that is not read
        torch._foreach_add_(places, torch._foreach_mul(signs, -factor * rate))
    else:
        torch._foreach_add_(places, signs, alpha=-factor * rate)
