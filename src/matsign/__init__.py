"""Matrix sign functions and the equations they solve, on NumPy, PyTorch and JAX arrays::

    msign(M) = M (MᴴM)^{-1/2}    singular values become 1
    mcsgn(M) = M (M²)^{-1/2}     eigenvalues become ±1

>>> import numpy as np, matsign
>>> a, q = np.array([[2.0, 1.0], [0.0, 3.0]]), np.eye(2)
>>> x, certificate = matsign.certify(matsign.solve_sylvester)(a, a.T, q)
>>> certificate.converged, certificate.backward_error < 1e-15
(True, True)
"""

from matsign import optim as optim  # imports PyTorch and JAX only when one of its names is used
from matsign.core.certificates import Certificate, certify
from matsign.core.derivatives import condition, frechet
from matsign.core.spectrum_error import SpectrumError
from matsign.core.trees import each
from matsign.equations.lyapunov.factors import discrete_lyapunov_factor, lyapunov_factor
from matsign.equations.lyapunov.gramians import discrete_gramian, gramian
from matsign.equations.lyapunov.solver import solve_continuous_lyapunov, solve_discrete_lyapunov
from matsign.equations.norms.h2 import discrete_h2_norm, h2_norm
from matsign.equations.norms.hinf import discrete_hinf_norm, hinf_norm
from matsign.equations.reduction.balanced_model import BalancedModel
from matsign.equations.reduction.balanced_truncation import balanced_truncation
from matsign.equations.reduction.bounded_real_balanced_truncation import bounded_real_balanced_truncation
from matsign.equations.reduction.hankel import hankel_singular_values
from matsign.equations.reduction.lqg_balanced_truncation import lqg_balanced_truncation
from matsign.equations.reduction.minimal_realization import Realization, minimal_realization
from matsign.equations.reduction.reduced_model import Reduced
from matsign.equations.riccati.care import solve_continuous_are
from matsign.equations.riccati.dare import solve_discrete_are
from matsign.equations.riccati.differential import solve_differential_riccati
from matsign.equations.riccati.discrete_horizon import dlqr_finite_horizon
from matsign.equations.riccati.estimator import Estimator, dlqe, lqe
from matsign.equations.riccati.extremal import discrete_extremal_solutions, extremal_solutions
from matsign.equations.riccati.factor import riccati_factor
from matsign.equations.riccati.finite_horizon import FiniteHorizonRegulator, lqr_finite_horizon
from matsign.equations.riccati.lqr import Regulator, dlqr, lqr
from matsign.equations.riccati.nonsymmetric import solve_riccati
from matsign.equations.riccati.time_varying import dlqr_time_varying
from matsign.equations.sylvester.discrete import solve_discrete_sylvester
from matsign.equations.sylvester.generalized import solve_generalized_sylvester
from matsign.equations.sylvester.pair import solve_sylvester_pair
from matsign.equations.sylvester.solver import solve_sylvester
from matsign.functions.distances.bures import bures_distance, fidelity
from matsign.functions.distances.factored_distances import bures_distance_of_factors, fidelity_of_factors
from matsign.functions.distances.frechet_distances import frechet_distance
from matsign.functions.distances.riemannian import riemannian_distance
from matsign.functions.distances.sample_distances import frechet_distance_of_samples
from matsign.functions.manifolds.steps import ManifoldStep, spectral_sphere_step, stiefel_step
from matsign.functions.means.bures_mean import bures_mean
from matsign.functions.means.geometric_mean import geometric_mean
from matsign.functions.means.karcher import karcher_mean
from matsign.functions.polar.polar import Polar, msign, polar
from matsign.functions.polar.warm_msign import WarmResult, warm_msign
from matsign.functions.powers.coupled_root import coupled_root
from matsign.functions.powers.fractional_power import fractional_matrix_power
from matsign.functions.powers.logarithm import logm
from matsign.functions.powers.root_products import invroot_product
from matsign.functions.powers.roots import invrootm, rootm
from matsign.functions.powers.square_roots import invsqrtm, sqrtm, sqrtm_pair
from matsign.functions.projectors.fermi_occupation import Occupation, fermi_occupation
from matsign.functions.projectors.spectral_projector import spectral_projector
from matsign.functions.proximal.proximal import mclip, soft_threshold
from matsign.functions.proximal.psd_projection import psd_project
from matsign.functions.proximal.warm_thresholds import warm_mclip, warm_soft_threshold
from matsign.functions.rotations.kabsch import Alignment, kabsch
from matsign.functions.rotations.procrustes import Procrustes, procrustes
from matsign.functions.rotations.rotation import nearest_rotation
from matsign.functions.sign.sign import matrix_abs, mcsgn
from matsign.functions.singular.warm_svd import LeadingSVD, warm_svd

__all__ = [
    "Alignment",
    "BalancedModel",
    "Certificate",
    "Estimator",
    "FiniteHorizonRegulator",
    "LeadingSVD",
    "ManifoldStep",
    "Occupation",
    "Polar",
    "Procrustes",
    "Realization",
    "Reduced",
    "Regulator",
    "SpectrumError",
    "WarmResult",
    "balanced_truncation",
    "bounded_real_balanced_truncation",
    "bures_distance",
    "bures_distance_of_factors",
    "bures_mean",
    "certify",
    "condition",
    "coupled_root",
    "discrete_extremal_solutions",
    "discrete_gramian",
    "discrete_h2_norm",
    "discrete_hinf_norm",
    "discrete_lyapunov_factor",
    "dlqe",
    "dlqr",
    "dlqr_finite_horizon",
    "dlqr_time_varying",
    "each",
    "extremal_solutions",
    "fermi_occupation",
    "fidelity",
    "fidelity_of_factors",
    "fractional_matrix_power",
    "frechet",
    "frechet_distance",
    "frechet_distance_of_samples",
    "geometric_mean",
    "gramian",
    "h2_norm",
    "hankel_singular_values",
    "hinf_norm",
    "invroot_product",
    "invrootm",
    "invsqrtm",
    "kabsch",
    "karcher_mean",
    "logm",
    "lqe",
    "lqg_balanced_truncation",
    "lqr",
    "lqr_finite_horizon",
    "lyapunov_factor",
    "matrix_abs",
    "mclip",
    "mcsgn",
    "minimal_realization",
    "msign",
    "nearest_rotation",
    "polar",
    "procrustes",
    "psd_project",
    "riccati_factor",
    "riemannian_distance",
    "rootm",
    "soft_threshold",
    "solve_continuous_are",
    "solve_continuous_lyapunov",
    "solve_differential_riccati",
    "solve_discrete_are",
    "solve_discrete_lyapunov",
    "solve_discrete_sylvester",
    "solve_generalized_sylvester",
    "solve_riccati",
    "solve_sylvester",
    "solve_sylvester_pair",
    "spectral_projector",
    "spectral_sphere_step",
    "sqrtm",
    "sqrtm_pair",
    "stiefel_step",
    "warm_mclip",
    "warm_msign",
    "warm_soft_threshold",
    "warm_svd",
]

__version__ = "0.1.0"
