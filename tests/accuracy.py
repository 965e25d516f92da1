"""The promise on accuracy: errors against the exact answer, compared with those of the best direct method."""

import numpy as np

import truth

FLOOR = {"float64": 1e-12, "float32": 1e-4, "complex128": 1e-12, "complex64": 1e-4}
_exact = {}  # the tests of one method after the other draw the same matrices


def assert_accurate(f, exact, peers, make, condition, factor=10):
    """If `condition` is at most 1e3 all errors are below the floor; else at most `factor` times those of the best method.

    `make()` draws the arguments. Errors of equally good methods differ by a hundred from draw to draw where they are
    large, so medians are compared.
    """
    errors = [_errors(f, exact, peers, make()) for _ in range(3)]
    dtype = np.result_type(*make()).name
    if condition <= 1e3 and max(e[0] for e in errors) <= FLOOR[dtype]:
        return
    errors += [_errors(f, exact, peers, make()) for _ in range(12)]
    ours, *theirs = np.median(errors, axis=0)
    limit = max(16 * np.finfo(dtype).eps, factor * min(theirs))
    assert ours <= limit, f"error {ours:.1e}, peers {', '.join(f'{x:.1e}' for x in theirs)}"


def _errors(f, exact, peers, arguments):
    """The errors of f and then of the direct methods."""
    expected = _truth(exact, arguments)
    with np.errstate(all="ignore"):
        return [truth.error(f(*arguments), expected), *(_error(p, arguments, expected) for p in peers)]


def _truth(exact, arguments):
    key = exact.__code__, exact.__defaults__, *(x.tobytes() + repr((x.shape, x.dtype)).encode() for x in arguments)
    if key not in _exact:
        _exact[key] = exact(*arguments)
    return _exact[key]


def _error(peer, arguments, expected):
    try:
        return truth.error(peer(*arguments), expected)
    except (np.linalg.LinAlgError, ValueError):
        return np.inf
