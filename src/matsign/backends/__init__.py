"""The array libraries: to which one an argument belongs, and the functions that each adds to the array API standard.

A backend is a module (``numpy``, ``torch`` or ``jax`` beside this file) with the functions of `Backend`. Nothing above
this folder, except optim/, imports an array library: `library_of` and `load` give the module, ``backend.xp`` is its array API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from matsign._typing import Array, Arrays
from matsign.backends.constants import constant_when_compiled

CODES = 3  # the last arrays that an operation returns: failure, iterations and detail, which have no derivatives


class Backend(Protocol):
    """The functions that matsign needs of an array library beyond the array API namespace ``xp``.

    Every array is a stack: matrices are ``(B, n, m)``, numbers of members ``(B,)``. No function raises for a member that
    has no answer: that member is NaN and the others are right.
    """

    xp: Any
    name: str

    def asarray(self, x: Any, like: Any = None) -> Array:
        """`x` as an array of this library, on the device of `like`."""

    def layout(self, x: Any) -> Any:
        """Hashable dtype, shape and device of x: calls with equal layouts are checked once.

        None for an array that is to be converted or has no values, and for a subclass.
        """

    def astype(self, x: Array, kind: str) -> Array:
        """`x` in the dtype called `kind` ("float32", "complex128", ...)."""

    def dtype_name(self, x: Array) -> str:
        """The name of the dtype of `x`."""

    def default_float(self) -> str:
        """The dtype that integers and lists become."""

    def resolve_conj(self, x: Array) -> Array:
        """`x` with lazy conjugation carried out."""

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
        """The name of the dtype to which these promote."""

    def device_name(self, x: Array) -> str:
        """The device of `x` as text, for comparing and for error messages."""

    def follows_others(self, x: Array) -> bool:
        """Whether the library moves x to the devices of other arrays that are computed with it."""

    def on_cpu(self, x: Array) -> bool: ...

    def fast_eigh(self, x: Array) -> bool:
        """Whether eigenvectors of Hermitian matrices like `x` take less time than an iteration to their sign."""

    def fast_svd(self, x: Array) -> bool:
        """Whether singular vectors of matrices like `x` take less time than an iteration to msign."""

    def fast_half_dtype(self, x: Array) -> str | None:
        """The 16-bit dtype whose products are several times faster than those of float32 on the device of `x`, or None."""

    def is_traced(self, x: Array) -> bool:
        """True if `x` has no values (inside ``jax.jit`` or ``torch.compile``)."""

    def dynamic_shapes(self, x: Array) -> bool:
        """Whether sizes may depend on values: not under a trace, and not in JAX, which compiles for every new shape."""

    def unrolls_loops(self, x: Array) -> bool:
        """Whether a loop on `x` is unrolled to its largest number of steps."""

    def products_only(self, x: Array) -> bool:
        """Whether `x` has no decompositions: its rows or columns are sharded, and inverses are computed by products."""

    def workers(self, x: Array) -> int:
        """The number of threads for the chunks of a large stack like `x`; 0 if it is not to be divided."""

    def full_precision(self, x: Array) -> Any:
        """A context manager for the computation: full matmul precision, no warnings."""

    def known_finite(self, x: Array) -> bool:
        """A quick test: True only if no entry of `x` is NaN or infinite."""

    def any_true(self, x: Array) -> bool:
        """Whether any entry of a mask or of counts is not zero."""

    def all_true(self, x: Array) -> bool:
        """Whether all entries of a mask are true."""

    def addmm(self, beta: float, x: Array, alpha: float, a: Array, b: Array) -> Array:
        """beta x + alpha a b, in one pass where the library has one."""

    def hermitian_product(self, a: Array, b: Array, shift: float = 0.0) -> Array:
        """a b + shift I for a product that is known to be Hermitian: where that is faster, only one triangle is computed."""

    def add_diagonal(self, x: Array, alpha: Array) -> Array:
        """x + alpha I with one alpha for each member; x may be overwritten."""

    def inv(self, a: Array) -> Array: ...

    def inv_near(self, a: Array, guess: Array) -> Array:
        """`inv`, which may start from the inverse of another matrix, near a or not."""

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
        """The largest modulus of the entries of each real matrix; denormal numbers are not flushed to zero."""

    def ldexp(self, x: Array, e: Array) -> Array:
        """x 2^e without an intermediate overflow or underflow."""

    def exact_ldexp(self, x: Array, e: Array) -> Array:
        """`ldexp` that is exact for denormal x and results, which `ldexp` may flush to zero; has no transpose in JAX."""

    def loop(self, step: Callable[[Any], Any], state: Any, limit: int) -> Any:
        """Repeat ``state, active = step(state)`` on the members that are active, at most `limit` times."""

    def fold_rows(self, rows: Iterable[tuple[float, ...]], f: Callable[..., Any], state: Any) -> Any:
        """``state = f(state, *row)`` for each of these rows of numbers; the shapes in the state do not change."""

    def scan(self, f: Callable[..., Any], state: Any, rows: Any, *, reverse: bool = False) -> tuple[Any, Any]:
        """``state, out = f(state, row)`` for each row of the arrays and ranges in `rows`: the last state and the stacked out.

        With `reverse` from the last row to the first; the stacked out have the order of the rows. There is at least one row.
        In JAX this is one loop, and it has derivatives of any order.
        """

    def shared_function(self, f: Callable[..., Any], backend: Any, *arrays: Any, **options: Any) -> Any:
        """``f(backend, *arrays, **options)``: in a compiled program one function for all calls with these options."""

    def sum_over_rows(self, f: Callable[..., Any], backend: Any, x: Array, shift: float) -> Array:
        """``f(backend, x, shift)``, a sum of products of the rows of each matrix of x, plus shift I."""

    def masked_cond(self, mask: Array, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Array) -> Any:
        """``yes(*arrays)`` for the members in `mask`, ``no(*arrays)`` for the others, each run only if it has members."""

    def masked_select(self, mask: Array, yes: Any, no: Any) -> Any:
        """The tree `yes` for the members in `mask`, `no` for the others."""

    def rare_cond(self, mask: Array, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Array) -> Any:
        """`masked_cond` for few members in `mask`: a program for an accelerator leaves them to the host and omits `yes`."""

    def as_stacks(self, arrays: Sequence[Any], batch: tuple[int, ...], own: Sequence[int]) -> tuple[Any, ...]:
        """Arrays, broadcast to the leading axes `batch`, as stacks; the last `own` axes are those of a member, None stays None.

        In JAX the leading axes are not merged, and one of size 1 is added to a single matrix: what has several leading axes is
        given to `bind` and `tangent` only.
        """

    def tangent(self, bound: Any, value: Arrays, arrays: Arrays, directions: Arrays) -> Arrays:
        """The tangent of the value of a bound operation."""

    def bind(self, bound: Any, *arrays: Array) -> tuple[Array, ...]:
        """``bound(self, *arrays)`` as one operation for automatic differentiation, with the derivatives that `bound` defines."""

    def by_numpy(self, bound: Any, *arrays: Array) -> bool:
        """Whether `bind` calls NumPy for this operation on arrays like these; then it does for all arrays of their layout."""

    def from_numpy(self, x: Any, like: Array) -> Array:
        """A NumPy array as one of this library, on the device of `like`."""

    def stop_gradient(self, x: Array) -> Array:
        """`x` as a constant for automatic differentiation."""

    def host_callback(self, f: Callable[..., Any], like: Any, *arrays: Array) -> Any:
        """Run the NumPy function `f` on these arrays; its results have the shapes and dtypes of `like`."""


_ROOTS = ("torch", "jax", "jaxlib")


def _library(cls: type) -> str | None:
    """The library of a type, or None for lists and Python numbers."""
    if hasattr(cls, "__array_namespace__") or hasattr(cls, "__array__") or hasattr(cls, "aval"):
        for base in cls.__mro__:
            root = base.__module__.partition(".")[0]
            if root in _ROOTS:
                return "torch" if root == "torch" else "jax"
        return "numpy"
    return None


_library_of_type: dict[type, str | None] = {}


def library_of(x: Any) -> str | None:
    """``"numpy"``, ``"torch"``, ``"jax"``, or None for a list or a number, which any library accepts."""
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
    """The backend module called `name`, imported on first use, by statements because torch.compile can trace these."""
    backend: Any
    if name == "torch":
        from matsign.backends import torch as backend
    elif name == "jax":
        from matsign.backends import jax as backend
    else:
        from matsign.backends import numpy as backend
    found: Backend = backend
    return found
