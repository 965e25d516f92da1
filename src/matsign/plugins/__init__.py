"""matsign inside other libraries: a method of python-control, solvers of pyMOR.

Importing this module changes nothing and imports neither library; each has one function that registers:

>>> import numpy as np, control, matsign.plugins
>>> with matsign.plugins.register_control():
...     x = control.lyap(np.array([[-1.0, 1.0], [0.0, -2.0]]), np.eye(2), method="matsign")
>>> x.shape
(2, 2)
"""

from matsign.plugins.registration import register_control, register_pymor

__all__ = ["register_control", "register_pymor"]
