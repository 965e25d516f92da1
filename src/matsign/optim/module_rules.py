"""Which matrices a parameter is made of, by the type of its module and by its name in the module."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch  # noqa: TID251
from torch import nn  # noqa: TID251

from matsign.optim.groups import Group

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_CONVOLUTIONS = (nn.modules.conv._ConvNd,)
# Gates that a recurrent layer keeps in one parameter, by the name of its class.
_GATES = {"LSTM": 4, "LSTMCell": 4, "GRU": 3, "GRUCell": 3}


class Owner(NamedTuple):
    """A module that has a parameter, with the parameter's name in the model and in the module."""

    name: str
    module: nn.Module
    attribute: str


def is_embedding_module(module: nn.Module) -> bool:
    return isinstance(module, _EMBEDDINGS) or type(module).__name__.endswith("Embedding")


def is_embedding(owner: Owner) -> bool:
    """Also a plain parameter called so: ``pos_embed``, ``rel_pos_h``, ``query_tokens``."""
    named = re.search("embed|token|(^|_)pos(_|ition|$)", owner.attribute)
    return is_embedding_module(owner.module) or named is not None


def is_norm(owner: Owner) -> bool:
    return re.search("Norm([123]d)?$", type(owner.module).__name__) is not None


def is_entrywise(owner: Owner) -> bool:
    """Whether a parameter with several axes is a table of numbers: biases of experts and positions, ``A_log`` of Mamba."""
    return re.search("(^|_)bias(_|$)|^A_log$", owner.attribute) is not None


def matrices(owner: Owner, p: nn.Parameter) -> tuple[str, Group]:
    """The kind of matrices in a parameter and their layout, by its module; "" if the module is not a known one."""
    module, weight = owner.module, owner.attribute == "weight"
    if isinstance(module, _CONVOLUTIONS):
        return "convolution", _split(module.groups)
    if isinstance(module, nn.MultiheadAttention) and owner.attribute == "in_proj_weight":
        return "queries, keys, values", {"split": 3}
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)) and owner.attribute.startswith(("weight_ih", "weight_hh")):
        return "recurrent", _split(_GATES.get(getattr(module, "mode", type(module).__name__), 1))
    if type(module).__name__ == "Conv1D" and weight and p.ndim == 2:
        return _transposed_linear(owner, *p.shape)
    if p.ndim == 3 and _is_flag(module, "is_transposed") and _is_flag(module, "is_concatenated"):
        return "experts", _experts(owner)
    return ("matrix", {}) if p.ndim == 2 else ("", {})


def _split(blocks: int) -> Group:
    return {"split": blocks} if blocks > 1 else {}


def _transposed_linear(owner: Owner, inputs: int, outputs: int) -> tuple[str, Group]:
    """``transformers.pytorch_utils.Conv1D``, the linear layer of GPT-2: in c_attn are queries, keys and values."""
    fused = owner.name.endswith("c_attn.weight") and outputs in (2 * inputs, 3 * inputs)
    reason = {2: "keys, values", 3: "queries, keys, values"}[outputs // inputs] if fused else "matrix"
    return reason, {"outputs_last": True, **(_split(outputs // inputs) if fused else {})}


def _is_flag(module: nn.Module, name: str) -> bool:
    return isinstance(getattr(module, name, None), bool)


def _experts(owner: Owner) -> Group:
    """Experts of transformers, which say how they keep their matrices."""
    options: Group = {"batch_axes": 1}
    if owner.module.is_transposed:
        options["outputs_last"] = True
    if owner.attribute.startswith("gate_up") and owner.module.is_concatenated:
        options["split"] = 2
    return options


def weight_shape(module: nn.Module) -> tuple[int, ...]:
    weight = getattr(module, "weight", None)
    return tuple(weight.shape) if isinstance(weight, torch.Tensor) and not nn.parameter.is_lazy(weight) else ()
