"""Square roots of complex matrices with eigenvalues on the negative real axis, which take the argument π/2.

No iteration to a sign has this root as its limit: it is computed by eigenvectors or Schur vectors, as all other powers.
"""

from __future__ import annotations

from typing import Any

from matsign._typing import Array
from matsign.backends import Backend, load
from matsign.core.failures import Failure
from matsign.core.members import Solution
from matsign.functions.powers.power_methods import matrix_function
from matsign.functions.powers.square_root_methods import root_pair
from matsign.linalg.scalar_powers import exponent


def solve_pair(
    backend: Backend, a: Array, *, rtol: float | None, method: str, inverse: bool = True, **options: Any
) -> Solution:
    """(A^{1/2}, A^{-1/2}) of a stack. Without `inverse` the second is arbitrary."""
    result = root_pair(backend, a, rtol=rtol, method=method, inverse=inverse, **options)
    if not backend.is_complex(a):
        return result
    on_cut = (result.failure == int(Failure.NEGATIVE)) | (result.failure == int(Failure.NEAR_NEGATIVE))

    def roots(a: Array, result: Solution) -> Solution:
        x = matrix_function(backend, a, power=exponent(1, 2), rtol=rtol, method="auto")
        if not inverse:
            return x._replace(value=(*x.value, *x.value))
        z = matrix_function(backend, a, power=exponent(-1, 2), rtol=rtol, method="auto")
        return x._replace(value=(*x.value, *z.value))

    if a.ndim > 2:
        return backend.rare_cond(on_cut, roots, lambda a, result: result, a, result)
    return _first(solve_pair(load("numpy"), a[None], rtol=rtol, method=method, inverse=inverse)) if on_cut else result


def _first(result: Solution) -> Solution:
    value, *others = result
    return Solution(tuple(x[0] for x in value), *(x[0] for x in others))


def solve_root(backend: Backend, a: Array, **options: Any) -> Solution:
    result = solve_pair(backend, a, **options, inverse=False)
    return result._replace(value=result.value[:1])


def solve_inverse_root(backend: Backend, a: Array, **options: Any) -> Solution:
    result = solve_pair(backend, a, **options)
    return result._replace(value=result.value[1:])
