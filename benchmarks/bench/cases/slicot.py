"""SLICOT through slycot or ctrlsys, whichever is installed, with matsign's arguments."""

from __future__ import annotations

import numpy as np

from bench.peers import SLICOT, module

slycot = module("slycot") if SLICOT.package == "slycot" else None
ctrlsys = module("ctrlsys") if SLICOT.package == "ctrlsys" else None


def fortran(*arrays):
    return [np.array(x, order="F") for x in arrays]


def checked(results, *good):
    """The results of a routine of ctrlsys without its code, if that is one of the good ones."""
    if results[-1] not in (0, *good):
        raise ValueError(f"SLICOT returns the code {results[-1]}")
    return results


def sylvester(a, b, q):
    """SB04MD: a x + x b = q."""
    if slycot:
        return slycot.sb04md(len(a), len(b), a, b, q)
    return checked(ctrlsys.sb04md(*fortran(a, b, q)))[0]


def lyapunov(a, q, kind="C"):
    """SB03MD: a x + x aᵀ = q, or a x aᵀ - x = q."""
    if slycot:
        _, _, x, scale, *_ = slycot.sb03md57(a, C=q, dico=kind, trana="T")
    else:
        # Not with "T": for kind "D" ctrlsys 1.1.1 then returns a wrong answer.
        x, *_, scale, _, _, _ = checked(ctrlsys.sb03md(kind, "X", "N", "N", len(a), *fortran(a.T, q)))
    return x / scale


def stein(a, q):
    return lyapunov(a, -q, "D")


def riccati(kind, a, b, q, r):
    """SG02AD, by deflating subspaces."""
    n, m = b.shape
    options = (kind, "B", "N", "U", "Z", "N", "S", "N")
    if slycot:
        return slycot.sg02ad(*options, n, m, n, a, np.eye(n), b, q, r, np.zeros((n, m)))[1]
    return checked(ctrlsys.sg02ad(*options, n, m, n, *fortran(a, np.eye(n), b, q, r, np.zeros((n, m))), 0.0))[0]


def care(*arguments):
    return riccati("C", *arguments)


def dare(*arguments):
    return riccati("D", *arguments)
