"""The calls that register, and undo it. They import python-control and pyMOR, and nothing else of matsign does."""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from types import ModuleType


def register_control() -> ExitStack:
    """Give the functions of python-control the method "matsign".

    ``lyap``, ``dlyap``, ``care`` and ``dare`` take ``method="matsign"``, and so do the functions that pass their method
    on: ``lqr``, ``dlqr``, ``lqe``, ``dlqe``. ``norm`` takes it for both of its norms, ``gram`` and ``hsvd``, which need
    Slycot otherwise, by a new keyword ``method``. Without it they do what they did.

    Returns
    -------
    registration : contextlib.ExitStack
        Its ``close()`` gives python-control its own functions back, and so does the end of a ``with`` block.

    Raises
    ------
    ImportError
        If python-control is missing or older than 0.10.

    See Also
    --------
    register_pymor : The same for pyMOR.

    Notes
    -----
    The functions are replaced in all modules of python-control. A name that was imported from it before, as by ``from
    control import lyap``, keeps the old function, whose error says so. Calling this again changes nothing, and the
    second registration then undoes nothing. Arguments, results and exceptions for wrong shapes are those of
    python-control; an equation without a solution raises `matsign.SpectrumError`, which is a
    `numpy.linalg.LinAlgError`.

    Examples
    --------
    >>> import numpy as np, control
    >>> from matsign.plugins import register_control
    >>> model = control.ss([[0, 1], [-2, -0.1]], [[0], [1]], [[1, 0]], 0)
    >>> with register_control():
    ...     gain, x, poles = control.lqr(model, np.eye(2), 1, method="matsign")
    ...     peak = control.norm(model, "inf", method="matsign")
    >>> bool(poles.real.max() < 0), round(peak, 4)
    (True, 7.0755)
    """
    _import("control", "python-control", "0.10", "register_control")
    from matsign.plugins import python_control

    return python_control.register()


def register_pymor() -> ExitStack:
    """Make pyMOR solve its dense matrix equations by matsign.

    The default solvers of pyMOR for Lyapunov, Riccati and positive Riccati equations, dense and as factors, become those
    of `matsign.plugins.pymor`. Equations that pyMOR gives to its sparse solvers stay with them.

    Returns
    -------
    registration : contextlib.ExitStack
        Its ``close()`` gives pyMOR its own defaults back, and so does the end of a ``with`` block.

    Raises
    ------
    ImportError
        If pyMOR is missing or older than 2026.1, the first version with solver classes.

    See Also
    --------
    register_control : The same for python-control.

    Notes
    -----
    This holds for models that exist already, too. To use the solvers for one model only, or for Sylvester equations, pass
    them to it: ``LTIModel(..., matrix_equation_solvers=MatrixEquationSolvers(lyapunov=MatsignLyapunovSolver()))`` with the
    classes of `matsign.plugins.pymor`. Calling this again changes nothing, and the second registration then undoes
    nothing. An equation without a solution raises `matsign.SpectrumError`.

    Examples
    --------
    >>> import numpy as np
    >>> from pymor.models.iosys import LTIModel
    >>> from matsign.plugins import register_pymor
    >>> a = np.array([[-1.0, 1.0], [0.0, -2.0]])
    >>> with register_pymor():
    ...     model = LTIModel.from_matrices(a, np.ones((2, 1)), np.eye(1, 2))
    ...     hsv = model.hsv()
    >>> len(hsv)
    2
    """
    _import("pymor", "pyMOR", "2026.1", "register_pymor")
    from matsign.plugins import pymor_defaults

    return pymor_defaults.register()


def _import(module: str, library: str, oldest: str, caller: str) -> ModuleType:
    """Import a library for a registration, or say what is missing."""
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ImportError(f"{caller} needs {library}, which is not installed: pip install {module}") from error
    missing = [name for name in _NEEDED[module] if not _has(name)]
    if missing:
        place, version = getattr(found, "__file__", None), getattr(found, "__version__", "without a version")
        raise ImportError(
            f"{caller} needs {library} {oldest} or newer; {place or module} ({version}) has no {', '.join(missing)}"
        )
    return found


_NEEDED = {
    "control": (
        "control.mateqn._slycot_or_scipy",
        "control.statefbk.gram",
        "control.modelsimp.hankel_singular_values",
        "control.sysnorm.system_norm",
    ),
    "pymor": ("pymor.solvers.matrix_equations.default.DefaultLyapunovSolver",),
}


def _has(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:
        return False
