"""Operations on matrices whose rows or columns are sharded: by products alone, so that no device holds a whole matrix.

Solvers get the matrices as `Distributed`, and this backend. It has no decomposition and no solver of LAPACK; an inverse is
computed by products (Schulz's iteration). Members that the products do not solve are NaN with the failure `NEEDS_ONE_DEVICE`.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as xp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from matsign._typing import Array
from matsign.backends import CODES, inverse_by_products
from matsign.backends import jax as jax_backend
from matsign.backends.control_flow import first_leaf, tree_map
from matsign.backends.jax_accelerator import Accelerator
from matsign.backends.jax_derivatives import Derivative
from matsign.backends.jax_distributed import Distributed, Grid, entrywise, identity, trace
from matsign.backends.jax_matrix_axes import grid_of, own_axes
from matsign.backends.jax_sharding import Axes, merge_members, no_mesh, split_members

_spec: Any = PartitionSpec  # has no types
# Numbers of `core.failures.Failure`. That an iteration did not converge suggests other methods, which are not available here.
NOT_CONVERGED, NEEDS_ONE_DEVICE = 9, 100


class Sharded(Accelerator):
    """The backend `jax` for one trace of one operation on distributed matrices."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(_refuse("a call of the host"))
        self.xp: Any = _Namespace()
        self.grid = grid

    def products_only(self, x: Array) -> bool:
        return True

    def fast_half_dtype(self, x: Any) -> str | None:
        return None  # exchanges and sums of products are in single precision

    def is_complex(self, x: Any) -> bool:
        return bool(xp.issubdtype(x.dtype, xp.complexfloating))

    def eye(self, n: int, like: Any) -> Any:
        return identity(n, n, like) if isinstance(like, Distributed) else jax_backend.eye(n, like)

    def norm(self, x: Any) -> Array:
        if not isinstance(x, Distributed):
            return jax_backend.norm(x)
        total = entrywise(lambda y: (y * y.conj()).real, x).sum()
        return xp.sqrt(total.reshape((len(x), -1)).sum(-1))

    def inner(self, x: Any, y: Any) -> Array:
        if not isinstance(x, Distributed):
            return jax_backend.inner(x, y)
        return entrywise(lambda x, y: (x.conj() * y).real, x, y).sum()

    def trace(self, x: Any) -> Array:
        return trace(x)

    def largest(self, x: Any) -> Array:
        return entrywise(xp.abs, x).largest()

    def ldexp(self, x: Any, e: Array) -> Any:
        return entrywise(jax_backend.ldexp, x, e) if isinstance(x, Distributed) else jax_backend.ldexp(x, e)

    exact_ldexp = ldexp

    def hermitian_product(self, a: Any, b: Any, shift: float = 0.0) -> Any:
        product = a @ b
        return product + shift * self.eye(a.shape[-2], a) if shift else product

    def add_diagonal(self, x: Any, alpha: Array) -> Any:
        return x + alpha[:, None, None] * self.eye(x.shape[-1], x)

    def inv(self, a: Any) -> Any:
        return inverse_by_products.inverse(self, a)

    def inv_near(self, a: Any, guess: Any) -> Any:
        return inverse_by_products.inverse(self, a, guess)

    def loop(self, step: Callable[[Any], Any], state: Any, limit: int) -> Any:
        """As in `Accelerator`, with the same number of steps on all devices."""

        # If there is one member, the loop goes on for it, and its last state need not be kept.
        alone = len(first_leaf(state)) == 1 and self.grid.every == self.grid.axes

        def alive(carry: Any) -> Any:
            k, _, active, _ = carry
            return lax.bitwise_and(k < limit, self.grid.anywhere(active))

        def body(carry: Any) -> Any:
            k, old, active, unserved_before = carry
            (new, still), unserved = self._collect_unserved(step, old)
            unserved = unserved_before if unserved is None else unserved_before | (unserved & active)
            new = tree_map(_laid_out_as, new, old) if alone else self.masked_select(active, new, old)
            return k + 1, new, active & still, unserved

        every = xp.ones(len(first_leaf(state)), bool)
        _, result, _, unserved = lax.while_loop(alive, body, (0, state, every, ~every))
        self._mark_unserved(unserved)
        return result

    def host_callback(self, f: Callable[..., Any], like: Any, *arrays: Any) -> Any:
        return _refuse("a call of LAPACK")()

    def masked_cond(self, mask: Array, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Any) -> Any:
        if len(mask) == 1:
            return self._exclusive_cond(mask, yes, no, *arrays)
        other, other_unserved = self._collect_unserved(no, *arrays)

        def both(mask: Array, *arrays: Any) -> Any:
            result, unserved = self._collect_unserved(yes, *arrays)
            return self.masked_select(mask, result, other), mask & (False if unserved is None else unserved)

        result, unserved = lax.cond(
            self.grid.anywhere(mask), both, lambda mask, *_: (other, mask & False), mask, *arrays
        )
        self._mark_unserved(unserved)
        self._mark_unserved(None if other_unserved is None else other_unserved & ~mask)
        return result

    def _exclusive_cond(self, mask: Array, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Any) -> Any:
        """For one member: one of the functions alone."""

        def branch(f: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arrays: Any) -> Any:
                result, unserved = self._collect_unserved(f, *arrays)
                return tree_map(_laid_out, result), xp.zeros(1, bool) if unserved is None else unserved

            return call

        result, unserved = lax.cond(self.grid.anywhere(mask), branch(yes), branch(no), *arrays)
        self._mark_unserved(unserved)
        return result

    def masked_select(self, mask: Array, yes: Any, no: Any) -> Any:
        return tree_map(lambda x, y: y if x is y else _select(mask, x, y), yes, no)

    def fold_rows(self, rows: Any, f: Callable[..., Any], state: Any) -> Any:
        def laid_out(x: Any, row: Any) -> Any:
            new = f(x, *row)
            return tree_map(_laid_out_as, new, x), None

        table = xp.asarray(list(rows), first_leaf(state).real.dtype)
        return lax.scan(laid_out, state, table)[0] if len(table) else state


def _laid_out_as(x: Any, like: Any) -> Any:
    """x distributed as `like`: the state of a loop keeps its layout."""
    return x.distribute(like.axis) if isinstance(like, Distributed) else x


def _laid_out(x: Any) -> Any:
    """x distributed as is usual for its size."""
    return x.distribute(x.grid.axis(*x.shape[-2:])) if isinstance(x, Distributed) else x


def _select(mask: Array, yes: Any, no: Any) -> Any:
    shaped = mask.reshape(mask.shape + (1,) * (no.ndim - 1))
    if isinstance(no, Distributed):
        return entrywise(xp.where, shaped, _laid_out_as(yes, no), no)
    return xp.where(shaped, yes, no)


class _Namespace:
    """`jax.numpy` for numbers and vectors; entry by entry for distributed matrices."""

    _ENTRYWISE = frozenset(("where", "abs", "isfinite", "zeros_like", "ones_like", "sign", "conj"))

    def __getattr__(self, name: str) -> Any:
        if name == "linalg":
            return _NoDecompositions()
        f = getattr(xp, name)
        if not callable(f) or isinstance(f, type):
            return f

        def call(*args: Any, **options: Any) -> Any:
            if not any(isinstance(x, Distributed) for x in _leaves(args)):
                return f(*args, **options)
            if name in self._ENTRYWISE:
                return entrywise(functools.partial(f, **options), *args)
            if name == "astype":
                return args[0].astype(args[1])
            if name == "max":
                return args[0].largest()
            return _refuse(name)()

        return call


def _leaves(args: Any) -> list[Any]:
    return jax.tree_util.tree_leaves(args, is_leaf=lambda x: isinstance(x, Distributed))


class _NoDecompositions:
    def __getattr__(self, name: str) -> Any:
        return _refuse(name)


def _refuse(name: str) -> Callable[..., Any]:
    def refuse(*args: Any, **options: Any) -> Any:
        raise NotImplementedError(_sentence(name))

    return refuse


def _sentence(name: str) -> str:
    return (
        f"this method needs {name} of a matrix whose rows or columns are sharded, which would put the whole matrix on every "
        "device. Take a method of products alone (method='auto' or 'polynomial', where the function has them), shard the "
        "leading (batch) axes instead, or move the matrix to one device: jax.device_put(x, jax.devices()[0])"
    )


for _name in ("svd", "eigh", "eig", "solve", "cholesky", "log_determinant"):
    setattr(Sharded, _name, staticmethod(_refuse(_name)))


def refusal(error: Exception) -> Exception:
    """The error that XLA reports as one of its own, where this module has raised it."""
    found = re.search(r"^(NotImplementedError|ValueError): (.*)$", str(error), re.MULTILINE)
    if found is None:
        return error
    return (NotImplementedError if found[1] == "NotImplementedError" else ValueError)(found[2])


def partition(
    bound: Any,
    solve: Callable[..., Any],
    members: NamedSharding,
    shardings: Sequence[Axes],
    operands: Any,
    results: Any,
) -> Any:
    """As `jax_partitioning` asks for: the program of one device, and the shardings of results and operands.

    `solve` is the function below for this operation.
    """
    mesh, leading = members.mesh, len(members.spec)
    with _name_function_in_errors(bound):
        grid = grid_of(mesh, shardings, leading, [x.shape for x in operands])
        own_operands, own_results = ([own_axes(grid, x.shape, leading) for x in xs] for xs in (operands, results))
    layouts, result_layouts = ([axis for axis, _ in own] for own in (own_operands, own_results))

    def program(*blocks: Array) -> tuple[Array, ...]:
        stacks = (merge_members(x, leading) for x in blocks)
        with no_mesh(), _name_function_in_errors(bound):
            result = solve(grid, layouts, result_layouts, *stacks)
        return tuple(split_members(x, blocks[0].shape[:leading]) for x in result)

    def named_shardings(own: Any) -> tuple[NamedSharding, ...]:
        return tuple(NamedSharding(mesh, _spec(*members.spec, *spec)) for _, spec in own)

    return mesh, program, named_shardings(own_results), named_shardings(own_operands)


@contextlib.contextmanager
def _name_function_in_errors(bound: Any) -> Iterator[None]:
    """Errors begin with the name of the function, and say what to do."""
    bound = bound.bound if isinstance(bound, Derivative) else bound
    name = (bound.operation if hasattr(bound, "operation") else bound.spec).name
    try:
        yield
    except (NotImplementedError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None
    except (TypeError, AttributeError, AssertionError) as error:
        # The solver or the certificate does something with arrays that `Distributed` has not.
        raise NotImplementedError(f"{name}: {_sentence('more than products')}") from error


def solve(bound: Any, grid: Grid, layouts: Sequence[int | None], results: Sequence[int | None], *blocks: Array) -> Any:
    """The results of an operation, this device's blocks of them, from this device's blocks of its arrays.

    `layouts` and `results` are the distributed axes of the arrays and of the values.
    """
    arrays = [Distributed(x, axis, grid) if x.ndim > 2 else x for x, axis in zip(blocks, layouts, strict=True)]
    backend = Sharded(grid)
    finite = functools.reduce(operator.and_, [_finite(x) for x in arrays])
    arrays = [_replace(backend, finite, x) for x in arrays]
    flat = tuple(bound(backend, *arrays))
    values, codes = (flat, ()) if isinstance(bound, Derivative) else (flat[:-CODES], flat[-CODES:])
    unserved = backend.unserved_members()
    right = functools.reduce(operator.and_, [_finite(x) for x in values], finite)
    if unserved is not None:
        right = right & ~unserved
    if codes:
        failure, iterations, detail = codes
        unsolved = ((failure == 0) & ~right) | (failure == NOT_CONVERGED)
        failure = xp.where(unsolved, NEEDS_ONE_DEVICE, failure)
        codes = (xp.where(finite, failure, 1), iterations, detail)  # 1: Failure.NONFINITE
    values = tuple(_mask(right, x) for x in values)
    pairs = zip(values, results[: len(values)], strict=True)
    return (*(x.distribute(axis).block if isinstance(x, Distributed) else x for x, axis in pairs), *codes)


def _finite(x: Any) -> Array:
    """The mask of the members without NaN or infinity."""
    if isinstance(x, Distributed):
        return entrywise(xp.isfinite, x).all((-1, -2))
    return xp.isfinite(x).reshape((len(x), -1)).all(-1)


def _replace(backend: Sharded, finite: Array, x: Any) -> Any:
    """x with the identity, or ones, for members that are not finite."""
    if not isinstance(x, Distributed):
        return xp.where(finite.reshape(finite.shape + (1,) * (x.ndim - 1)), x, xp.ones_like(x))
    return entrywise(xp.where, finite[:, None, None], x, identity(x.shape[-2], x.shape[-1], x))


def _mask(right: Array, x: Any) -> Any:
    return _select(right, x, entrywise(lambda y: y + xp.nan, x) if isinstance(x, Distributed) else x + xp.nan)
