"""Matrix sign functions and the equations they solve, on NumPy, PyTorch and JAX arrays."""

from matsign.functions.sign import matrix_abs, mcsgn, spectral_projector
from matsign.functions.polar import Polar, msign, polar
