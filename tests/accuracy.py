"""The promise on accuracy: beside the best direct method, on the same matrices, against the exact answer."""

import numpy as np

import truth

FLOOR = {"float64": 1e-12, "float32": 1e-4, "complex128": 1e-12, "complex64": 1e-4}


def assert_accurate(f, exact, peers, make, condition, draws=3, factor=10):
    """The error of `f` is at most `factor` times that of the best peer, or the floor where `condition` is at most 1e3.

    `make()` draws the arguments; errors are the worst of a few draws, so that no peer is best by luck alone.
    """
    ours, theirs = 0.0, np.zeros(len(peers))
    for _ in range(draws):
        arguments = make()
        expected = exact(*arguments)
        ours = max(ours, truth.error(f(*arguments), expected))
        with np.errstate(all="ignore"):
            theirs = np.maximum(theirs, [_error(peer, arguments, expected) for peer in peers])
    dtype = np.result_type(*arguments).name
    floor = FLOOR[dtype] if condition <= 1e3 else 16 * np.finfo(dtype).eps
    assert ours <= max(floor, factor * theirs.min())


def _error(peer, arguments, expected):
    try:
        return truth.error(peer(*arguments), expected)
    except (np.linalg.LinAlgError, ValueError):
        return np.inf
