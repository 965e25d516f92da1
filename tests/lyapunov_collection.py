"""The cases with a descriptor of the collections CTLEX and DTLEX (Kressner, Mehrmann & Penzl 1999), in the form of this library.

The solution of example 4.3 is a matrix of ones, and its pencil is nearly singular for a large t; 4.4 has a graded spectrum. The
collections have aᴴ x e + eᴴ x a, so a and e are transposed here.
"""

import numpy as np

import truth


def triangular_case(n, t, *, discrete):
    """(a, q, e) of example 4.3, with q the exact right-hand side for the exact solution of ones, rounded."""
    small = 2.0**-t
    e = np.eye(n) + np.tril(np.full((n, n), small), -1)
    a = np.triu(np.ones((n, n)), 1) + np.diag(np.arange(n) + discrete + small)
    a, e = a.T.copy(), e.T.copy()
    of_a, of_e, x = truth.exact(a), truth.exact(e), truth.exact(np.ones((n, n)))
    if discrete:
        q = of_e @ x @ of_e.T - of_a @ x @ of_a.T
    else:
        q = of_a @ x @ of_e.T + of_e @ x @ of_a.T
    return a, q.astype(float), e


def graded_case(blocks, t, *, discrete):
    """(a, q, e) of example 4.4: blocks of size 3 whose eigenvalues have the modulus tⁱ, or 1 - t⁻ⁱ."""
    n = 3 * blocks
    a = np.zeros((n, n))
    for i in range(1, blocks + 1):
        whole = 1 - t**-i if discrete else -(t**i)
        other = -whole / np.sqrt(2) if discrete else whole
        top = n - 3 * i
        a[top + 2, : 3 * i - 3] = whole
        a[top + 1, : 3 * i - 3] = 2 * other
        a[top + 2, 3 * i - 3] = whole
        a[top + 1, 3 * i - 3 : 3 * i] = 2 * other, 2 * other, other
        a[top, 3 * i - 1] = other
    a = np.cumsum(a, axis=0)
    index = np.arange(1, n + 1)
    e = np.minimum(index[:, None], index[None, :]).astype(float)[:, ::-1]
    b = index[:, None].astype(float)
    return a.T.copy(), b @ b.T * (1 if discrete else -1), e.T.copy()
