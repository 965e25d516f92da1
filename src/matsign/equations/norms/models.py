"""What the norms of models share: the failures of their values, and the declaration of the arguments (a, b, c, d, e)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.core.public import FunctionSpec, public_function


def norm_solution(
    backend: Backend, values: Arrays, finite: Array, failure: Array, steps: Array, detail: Array | None
) -> Solution:
    """The solution; a model that is not stable has an infinite norm, and values that should be `finite` may be too large."""
    failure = Failure.INFINITE_NORM.where(backend, failure == int(Failure.UNSTABLE), failure)
    failure = Failure.OVERFLOW.where(backend, (failure == 0) & ~finite, failure)
    result = solution(backend, values, iterations=steps)._replace(failure=failure)
    return result if detail is None else result._replace(detail=detail)


def norm_of_model(f: Callable[..., Any], arrays: str, results: str, *, discrete: bool, **parts: Any) -> FunctionSpec:
    """The `FunctionSpec` of a norm of models: of the shapes `arrays`, and e, to real numbers of the shapes `results`."""
    return public_function(
        f,
        f"{arrays},(n,n)->{results}",
        keyword_arrays=("e",),
        kinds=("real",) * len(results.split("),")),
        columns=("b",),
        rows=("c",),
        neutral={"n": 0.0 if discrete else -1.0, len(arrays.split("),")): 1.0},
        **parts,
    )
