"""A device "emulated" that the CPU computes: an operation on its tensors and on the CPU's is an error, as on a GPU.

``with emulated():`` must be around all that uses the tensors made by `put`.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("emulated")
DEVICE, CPU = torch.device("emulated:0"), torch.device("cpu")
_aten = torch.ops.aten
_BETWEEN_DEVICES = (_aten._to_copy.default, _aten.copy_.default)


class EmulatedTensor(torch.Tensor):
    """A tensor that says it is on the device, around one on the CPU."""

    @staticmethod
    def __new__(cls, held):
        held = held.resolve_conj().resolve_neg()
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
        )
        made.held = held
        return made

    def tolist(self):
        return self.held.tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, f, types, args=(), kwargs=None):
        return _call(f, args, kwargs or {})


class emulated(TorchDispatchMode):
    """Makes tensors on the device where one is asked for."""

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        return _call(f, args, kwargs or {})


def put(x):
    return EmulatedTensor(torch.as_tensor(x).clone())


def _held(x):
    return x.held if isinstance(x, EmulatedTensor) else x


def _call(f, args, kwargs):
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    here = [x for x in given if isinstance(x, EmulatedTensor)]
    if here and f not in _BETWEEN_DEVICES and any(x.ndim and not isinstance(x, EmulatedTensor) for x in given):
        raise RuntimeError(f"tensors of two devices in {f}")
    asked = kwargs.get("device")
    kwargs = {**kwargs, "device": CPU} if asked is not None else kwargs
    value = f(*tree_map(_held, args), **tree_map(_held, kwargs))
    if not f._schema.returns:
        return None
    if f is _aten.copy_.default or (f._schema.is_mutable and here and "out" not in kwargs):
        return args[0]
    if "out" in kwargs:
        return kwargs["out"]
    there = bool(here) if asked is None else torch.device(asked).type == DEVICE.type
    return tree_map(lambda x: EmulatedTensor(x) if there and isinstance(x, torch.Tensor) else x, value)
