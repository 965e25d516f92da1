"""Density matrices at a temperature, by the Fermi-Dirac distribution.  The differential is in `fermi_derivatives`."""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import ArrayLike, Generic, NumberLike, OptionalArrayLike, T
from matsign.backends import Backend
from matsign.core.public import public_function
from matsign.functions.projectors.fermi_certificates import fermi_residual
from matsign.functions.projectors.fermi_derivatives import fermi_cotangent, fermi_tangent
from matsign.functions.projectors.fermi_methods import METHODS, check_filling, solve_fermi


class Occupation(NamedTuple, Generic[T]):
    """Hold a density matrix at a temperature.

    The result of `fermi_occupation`: a named tuple of one electron state for each basis function, without a factor for
    spin.

    Attributes
    ----------
    density : array (..., n, n)
        The density matrices D.
    mu : array (...)
        The chemical potentials.
    entropy : array (...)
        The entropies in units of Boltzmann's constant, so that tr(D H) - kT entropy is the free energy.

    See Also
    --------
    fermi_occupation : The function that returns it.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import fermi_occupation
    >>> density, mu, entropy = fermi_occupation(np.diag([-1.0, 1.0]), kT=0.5, electrons=1)
    >>> bool(abs(mu) < 1e-15)
    True
    """

    density: T
    mu: T
    entropy: T


def fermi_occupation(
    H: ArrayLike[T],
    kT: NumberLike[T],
    mu: NumberLike[T] | None = None,
    electrons: NumberLike[T] | None = None,
    *,
    overlap: OptionalArrayLike[T] = None,
    method: str = "auto",
    errors: str = "raise",
) -> Occupation[T]:
    """Compute the density matrix of electrons at a temperature.

    D = f(H) = (I + exp((H - mu I)/kT))⁻¹: each eigenvector of H is occupied by the Fermi-Dirac distribution [1]_, also
    called smearing.

    Parameters
    ----------
    H : array_like (..., n, n)
        Hermitian matrices, the Hamiltonians, of dtype float32, float64, complex64 or complex128.
    kT : float or array_like (...)
        The temperature times Boltzmann's constant, positive, in the units of H: one number, or one for every member.
    mu : float or array_like (...), optional
        The chemical potential. Default: 0, unless ``electrons`` is given.
    electrons : float or array_like (...), optional
        The number of electrons without spin, between 0 and n and not necessarily whole; mu is then found such that
        tr(D S) is this number, to rounding.
    overlap : array_like (..., n, n), optional
        The overlap matrices S of a basis, Hermitian positive definite. The energies are then those of H c = ε S c, and D
        is the sum of f(ε) c cᴴ with cᴴ S c = 1. Default: I.
    method : {"auto", "eigh", "polynomial"}, default "auto"
        How D is computed:

        - "eigh": by eigenvectors.
        - "polynomial": by products alone, with a polynomial for a high temperature that is then halved repeatedly [2]_
          [3]_. With ``electrons``, Newton's method for mu repeats this.
        - "auto": "eigh" on a CPU, "polynomial" on an accelerator.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    density : array (..., n, n)
        The density matrices D, in the library, on the device and in the dtype of H.
    mu : array (...)
        The chemical potentials, those given or those found.
    entropy : array (...)
        The entropies -tr(F log F + (I - F) log(I - F)) of the occupations F = D S, in units of Boltzmann's constant.

    Raises
    ------
    SpectrumError
        If a number in an array is out of range, ``electrons`` is not between 0 and n, ``overlap`` is not positive definite
        to working precision, or a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, both ``mu`` and ``electrons`` are given,
        kT is not positive, the arrays lie on different devices, or H or ``overlap`` in NumPy arrays is not Hermitian.
    TypeError
        If H is not a dense array of numbers of a supported dtype, or the arrays belong to different libraries.

    See Also
    --------
    spectral_projector : The limit kT = 0, occupations of 0 and 1.
    mcsgn : The sign.

    Notes
    -----
    The result is a named tuple, `Occupation`. The free energy is tr(D H) - kT entropy; at a fixed number of electrons its
    derivative by H is D, as the changes of D, mu and the entropy cancel.

    For a whole number of electrons and a kT far below the gap, mu is near the middle of the gap, and "polynomial" finds
    only some mu in the gap that gives the number to rounding. Where kT is so small beside the distance of energies from mu
    that rounding of H (eps times its norm) moves f, so does rounding of the result.

    Derivatives exist to any order, by H, ``overlap``, kT, mu and ``electrons``, also at repeated energies, and those of mu
    at a fixed number of electrons. A member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no
    error can be raised: a member without an answer is NaN.

    The backward error of `certify` compares F = D S in an orthonormal basis with G = f(X), X = (H - mu)/kT, by the other
    of the two methods: ‖F - G‖ / (‖F‖ + ‖G‖ + ‖F - F²‖ ‖X‖), by eigenvectors over at least 1, because the products of the
    comparison know F to rounding of I; or, if larger, the error of the number of electrons over its terms.

    References
    ----------
    .. [1] N. D. Mermin, "Thermal properties of the inhomogeneous electron gas", Phys. Rev. 137, 1965, pp. A1441-A1443,
       doi:10.1103/PhysRev.137.A1441.
    .. [2] S. Goedecker, "Linear scaling electronic structure methods", Rev. Mod. Phys. 71, 1999, pp. 1085-1123,
       doi:10.1103/RevModPhys.71.1085.
    .. [3] A. M. N. Niklasson, "Implicit purification for temperature-dependent density matrices", Phys. Rev. B 68, 2003,
       233104, doi:10.1103/PhysRevB.68.233104.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import fermi_occupation
    >>> H = -np.eye(5, k=1) - np.eye(5, k=-1)  # a chain of five atoms
    >>> density, mu, entropy = fermi_occupation(H, kT=0.1, electrons=2)
    >>> round(float(np.trace(density)), 12), round(float(mu), 4)
    (2.0, -0.5)
    >>> f = 1 / (1 + np.exp((np.linalg.eigvalsh(H) - mu) / 0.1))
    >>> bool(abs(entropy + np.sum(f * np.log(f) + (1 - f) * np.log(1 - f))) < 1e-12)
    True
    """
    return FERMI_OCCUPATION(H, overlap, kT=kT, mu=mu, electrons=electrons, method=method, errors=errors)


# The energy of the one state in place of none: far above μ, so that it adds no entropy.
_EMPTY = 1e30


def _as_occupation(backend: Backend, *arrays: T) -> Occupation[T]:
    return Occupation(*arrays)


FERMI_OCCUPATION = public_function(
    fermi_occupation,
    "(n,n),(n,n)->(n,n),(),()",
    solve=solve_fermi,
    residual=fermi_residual,
    tangent=fermi_tangent,
    cotangent=fermi_cotangent,
    choices={"method": METHODS},
    numbers=("kT", "mu", "electrons"),
    signed=("mu", "electrons"),
    hermitian=("H", "overlap"),
    keyword_arrays=("overlap",),
    kinds=("same", "real", "real"),
    wrap=_as_occupation,
    neutral={0: _EMPTY, 1: 1.0},
    check=check_filling,
)
