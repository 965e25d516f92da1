"""The array libraries: which one an argument belongs to, and the little each must add to the array API standard.

A backend is a module (``numpy``, ``torch`` or ``jax`` beside this file) with the functions of `Backend`. Nothing above
this folder imports an array library; it asks `backend_of` for the module and uses ``backend.xp`` for everything standard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from matsign._typing import Array
from matsign.backends.constants import constant_when_compiled

CODES = 3  # at the end of what a step returns: failure, iterations and detail, which have no derivatives


class Backend(Protocol):
    """What matsign asks of an array library beyond the array API namespace ``xp``.

    Every array here is a stack: matrices are ``(B, n, m)``, per-member numbers ``(B,)``. Nothing raises for a member
    that has no answer: that member is NaN and the others are right.
    """

    xp: Any
    name: str

    def asarray(self, x: Any, like: Any = None) -> Array:
        """`x` as an array of this library, on the device of `like`."""

    def layout(self, x: Any) -> Any:
        """What decides, but for its values, how a call with x is made, as the key of a dictionary: dtype, shape, device.

        None where that is not all: for an array to be converted, one without values, or a subclass.
        """

    def astype(self, x: Array, kind: str) -> Array:
        """`x` in the dtype called `kind` ("float32", "complex128", ...)."""

    def dtype_name(self, x: Array) -> str:
        """The name of the dtype of `x`."""

    def default_float(self) -> str:
        """The dtype that integers and lists become."""

    def resolve_conj(self, x: Array) -> Array:
        """`x` as the caller expects it, with nothing lazy left in it."""

    def eye(self, n: int, like: Array) -> Array:
        """The n by n identity in the dtype and on the device of `like`."""

    def zeros(self, shape: tuple[int, ...], like: Array) -> Array:
        """Zeros in the dtype and on the device of `like`."""

    def ones(self, like: Array) -> Array:
        """1.0 for each member of the stack `like`, real."""

    def int_zeros(self, like: Array) -> Array:
        """0 for each member of the stack `like`, int32."""

    def is_complex(self, x: Array) -> bool: ...

    def inner(self, x: Array, y: Array) -> Array:
        """The real part of xᴴy of two vectors per member, (B, k)."""

    def norm(self, x: Array) -> Array:
        """The Frobenius norm of each member of a stack, of any number of axes."""

    def trace(self, x: Array) -> Array:
        """The trace of each member, complex for complex x."""

    def eps(self, x: Array) -> float:
        """The spacing of numbers near 1 in the dtype of `x`."""

    def common_dtype_name(self, *xs: Array) -> str:
        """The dtype these promote to."""

    def device_name(self, x: Array) -> str:
        """The device of `x` as text, for comparing and for error messages."""

    def on_cpu(self, x: Array) -> bool: ...

    def fast_half_dtype(self, x: Array) -> str | None:
        """The dtype of 16 bits whose products the device of `x` takes several times faster than those of float32, if any."""

    def is_traced(self, x: Array) -> bool:
        """True when `x` has no value yet (inside ``jax.jit`` and its like)."""

    def dynamic_shapes(self, x: Array) -> bool:
        """Whether sizes may depend on values: never under a trace, and not where every new shape is compiled for anew."""

    def unrolls_loops(self, x: Array) -> bool:
        """Whether a loop on `x` becomes as many steps as it may take, one after the other."""

    def workers(self, x: Array) -> int:
        """How many pieces of a large stack like `x` are best in work at the same time; none where it is best left whole."""

    def full_precision(self, x: Array) -> Any:
        """A context manager for the computation: full matmul precision, no warnings."""

    def known_finite(self, x: Array) -> bool:
        """A quick look: True only if no entry of `x` is NaN or infinite."""

    def any_true(self, x: Array) -> bool:
        """Whether any entry of a mask or of counts is not zero."""

    def all_true(self, x: Array) -> bool:
        """Whether all entries of a mask are true."""

    def addmm(self, beta: float, x: Array, alpha: float, a: Array, b: Array) -> Array:
        """beta x + alpha a b, in one pass where the library has one."""

    def hermitian_product(self, a: Array, b: Array, shift: float = 0.0) -> Array:
        """a b + shift I for a product that is known to be Hermitian: where it pays, only one triangle of it is computed."""

    def add_diagonal(self, x: Array, alpha: Array) -> Array:
        """x + alpha I with a number per member; x is given up, and may be where the result is."""

    def inv(self, a: Array) -> Array: ...

    def svd(self, a: Array) -> tuple[Array, Array, Array]:
        """(u, values, vh), economic, values descending."""

    def eigh(self, a: Array) -> tuple[Array, Array]:
        """(values, vectors) of Hermitian members, values ascending."""

    def eig(self, a: Array) -> tuple[Array, Array]:
        """(values, vectors) of any members, both complex."""

    def solve(self, a: Array, b: Array) -> Array: ...

    def cholesky(self, a: Array) -> Array: ...

    def log_determinant(self, a: Array) -> Array:
        """The logarithm of the modulus of the determinant."""

    def exponent(self, x: Array) -> Array:
        """e with 2^(e-1) <= x < 2^e, elementwise, as an integer array; 0 for 0."""

    def largest(self, x: Array) -> Array:
        """The largest modulus among the entries of each real matrix, denormals not taken for zero."""

    def ldexp(self, x: Array, e: Array) -> Array:
        """x 2^e without an intermediate overflow or underflow."""

    def exact_ldexp(self, x: Array, e: Array) -> Array:
        """`ldexp` for denormal x or results too, where `ldexp` takes them for zero; not for what is to be transposed."""

    def loop(self, step: Callable[[Any], Any], state: Any, limit: int) -> Any:
        """Repeat ``state, active = step(state)`` on the members that are active, at most `limit` times."""

    def fold_rows(self, rows: Iterable[tuple[float, ...]], f: Callable[..., Any], state: Any) -> Any:
        """``state = f(state, *row)`` for each of these rows of numbers; what comes and goes has one shape."""

    def shared_function(self, f: Callable[..., Any], backend: Any, *arrays: Any, **options: Any) -> Any:
        """``f(backend, *arrays, **options)``: in a compiled program one function for all calls with these options."""

    def masked_cond(self, mask: Array, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Array) -> Any:
        """``yes(*arrays)`` for the members in `mask` and ``no(*arrays)`` for the rest, each run only if it has members."""

    def masked_select(self, mask: Array, yes: Any, no: Any) -> Any:
        """The one tree in the members in `mask`, the other elsewhere."""

    def rare_cond(self, mask: Array, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Array) -> Any:
        """`split` where few members are in `mask`: a program for an accelerator leaves those to the host and has no `yes`."""

    def bind(self, bound: Any, *arrays: Array) -> tuple[Array, ...]:
        """``step(self, *arrays)`` as one operation for automatic differentiation, which asks the step for its derivatives."""

    def by_numpy(self, bound: Any, *arrays: Array) -> bool:
        """Whether `derived` leaves this step on arrays like these to NumPy as they come: other arrays, of the same place, too."""

    def from_numpy(self, x: Any, like: Array) -> Array:
        """A NumPy array as one of this library, where `like` lies."""

    def stop_gradient(self, x: Array) -> Array:
        """`x` without its dependence on anything."""

    def host_callback(self, f: Callable[..., Any], like: Any, *arrays: Array) -> Any:
        """Run the NumPy function `f` on these arrays; its results have the shapes and dtypes of `like`."""


_ROOTS = ("torch", "jax", "jaxlib")


def _library(cls: type) -> str | None:
    """The library that a type comes from, or None for lists and Python numbers."""
    if hasattr(cls, "__array_namespace__") or hasattr(cls, "__array__") or hasattr(cls, "aval"):
        for base in cls.__mro__:
            root = base.__module__.partition(".")[0]
            if root in _ROOTS:
                return "torch" if root == "torch" else "jax"
        return "numpy"
    return None


_library_of_type: dict[type, str | None] = {}


def library_of(x: Any) -> str | None:
    """``"numpy"``, ``"torch"``, ``"jax"``, or None for a list or a number (any library will do)."""
    return _cached_library(type(x))


@constant_when_compiled
def _cached_library(cls: type) -> str | None:
    if cls not in _library_of_type:
        _library_of_type[cls] = _library(cls)
    return _library_of_type[cls]


def layout(x: Any) -> Any:
    """`Backend.layout` for an array of any library, None for anything else."""
    library = library_of(x)
    return None if library is None else load(library).layout(x)


def load(name: str) -> Backend:
    """The backend module called `name`, imported on first use; by statements, which torch.compile can follow."""
    backend: Any
    if name == "torch":
        from matsign.backends import torch as backend
    elif name == "jax":
        from matsign.backends import jax as backend
    else:
        from matsign.backends import numpy as backend
    found: Backend = backend
    return found
