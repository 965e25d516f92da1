"""Reasons for a member to have no answer, and the sentences that tell them."""

from __future__ import annotations

from enum import IntEnum, unique
from typing import Any

from matsign.backends import Backend


@unique
class Failure(IntEnum):
    """Why a member of a batch has no answer. Solvers return one of these numbers for each member."""

    NONE = 0
    NONFINITE = 1
    AXIS = 2
    SINGULAR = 3
    DEFECTIVE_ZERO = 4
    NEGATIVE = 5
    COMMON_EIGENVALUE = 6
    WRONG_HALVES = 7
    NO_GRAPH = 8
    NOT_CONVERGED = 9
    NOT_REAL = 10
    NOT_DEFINITE = 11
    NO_LINE = 12
    NOT_HERMITIAN = 13
    RECIPROCAL_EIGENVALUES = 14
    UNSTABLE = 15
    BARELY_STABLE = 31
    NOT_STABILISABLE = 16
    NOT_DETECTABLE = 17
    NOT_STABILISING = 18
    SINGULAR_R = 19
    SINGULAR_E = 20
    OVERFLOW = 21
    NOT_A_MINIMUM = 22
    HARDLY_STABILISABLE = 23
    HARDLY_STABILISED = 24
    LOST = 25
    HARDLY_SPLIT = 26
    NEAR_NEGATIVE = 40
    UNCLEAR_ZERO = 41
    RANGES_DIFFER = 42
    BOTH_SINGULAR = 43
    LOST_PRODUCT = 44
    NEGATIVE_PRODUCT = 45
    GRADED_APART = 46
    UNDECIDED_ZERO = 60
    THRESHOLDS = 80
    NOT_BY_PRODUCTS = 90
    NEEDS_ONE_DEVICE = 100
    RECIPROCAL_PAIR = 110
    COMMON_PENCIL_EIGENVALUE = 111
    COMMON_PAIR_EIGENVALUE = 112
    COMMON_DESCRIPTOR_EIGENVALUE = 113
    RECIPROCAL_DESCRIPTOR_EIGENVALUES = 114
    NOT_MEASURED = 120
    NOT_DISTURBED = 121
    NO_ESTIMATOR = 122
    SINGULAR_RN = 123
    HARDLY_MEASURED = 124
    HARDLY_ESTIMATED = 125
    NOT_A_COVARIANCE = 126
    INFINITE_NORM = 130
    NOT_ANTI_STABILISABLE = 140
    NOT_WEIGHTED = 141
    NOT_ANTI_STABILISING = 142
    HARDLY_ANTI_STABILISABLE = 143
    HARDLY_ANTI_STABILISED = 144
    ANTI_LOST = 145
    ZERO_LOOP = 146
    ON_LINE = 150
    NEAR_LINE = 151
    NOT_A_LINE = 152
    OVERLAP = 153
    DEGENERATE = 154
    LEVELS = 155
    TEMPERATURE = 220
    POTENTIAL = 221
    ELECTRONS = 222
    NOT_STABILISABLE_BY_G = 160
    NOT_ANTI_STABILISABLE_BY_G = 161
    NOT_STABILISING_WITH_G = 162
    NOT_ANTI_STABILISING_WITH_G = 163
    HARDLY_STABILISABLE_BY_G = 164
    HARDLY_ANTI_STABILISABLE_BY_G = 165
    SINGULAR_WITH_G = 166
    ZERO_LOOP_WITH_G = 167
    WEIGHTS = 170
    INDEFINITE_A = 171
    INDEFINITE_B = 172
    NOT_A_POINT = 240
    NO_KARCHER_MEAN = 241
    NOT_SEMIDEFINITE = 242
    NO_DEFINITE_MATRIX = 243
    NO_BURES_MEAN = 244
    MEAN_WEIGHT = 245
    NOT_A_GEODESIC = 246
    MORE_STATES = 185
    NOT_OBSERVED = 180
    HARDLY_OBSERVED = 181
    ESCAPE = 200
    UNDECIDED_ESCAPE = 201
    LONG_HORIZON = 202
    NEGATIVE_TIME = 203
    INDEFINITE_STEP = 204
    HIDDEN_MODE = 190
    NO_RICCATI_PAIR = 191
    NOT_BOUNDED_REAL = 192
    MORE_KEPT_POLES = 186
    NOT_DEFINITE_A = 173
    NOT_DEFINITE_B = 174
    DUALITY_GAP = 230
    NOT_ORTHONORMAL = 231
    ZERO_WEIGHT = 232
    FEW_SAMPLES_X = 175
    FEW_SAMPLES_Y = 176

    def where(self, backend: Backend, mask: Any, failure: Any) -> Any:
        """The failures of a stack, with this failure for the members in the mask."""
        return backend.xp.where(mask, int(self) + 0 * failure, failure)


MESSAGES = {
    Failure.NEEDS_ONE_DEVICE: "the method by matrix products, the only one for a matrix whose rows or columns are sharded, "
    "does not solve it: it may be singular, too ill-conditioned or unbalanced, or outside the class that products can "
    "solve; move it to one device, jax.device_put(x, jax.devices()[0]), where the other methods solve it or say exactly why "
    "not",
    Failure.NONFINITE: "the input holds NaN or infinity",
    Failure.AXIS: "an eigenvalue lies on the imaginary axis to working precision, where it has no sign; shift the matrix "
    "or use a wider dtype if its real part is not zero in exact arithmetic",
    Failure.SINGULAR: "the matrix is singular to working precision; lower rtol if its smallest eigenvalues are not to count "
    "as zero",
    Failure.DEFECTIVE_ZERO: "zero is a defective eigenvalue (a Jordan block) to the tolerance rtol, so there is no primary "
    "root; if it is not defective in exact arithmetic, use a wider dtype; for the square root of a product of covariances "
    "s1 s2, take instead that of the symmetric r s2 r with r = sqrtm(s1), which has the same eigenvalues",
    Failure.NEGATIVE: "the eigenvalue {detail} lies on the negative real axis, where a real matrix has no real principal "
    "root, power or logarithm; convert it to a complex dtype for the complex one, whose eigenvalue there has a positive "
    "imaginary part",
    Failure.NEAR_NEGATIVE: "the eigenvalue {detail} lies so near the negative real axis that rounding of the matrix (n eps "
    "times its norm) may put it there, where there is no principal root; a wider dtype may show that it is beside the axis, "
    "and a complex dtype treats it as on the axis",
    Failure.UNCLEAR_ZERO: "the matrix is singular to rtol, and which of its smallest eigenvalues are zero cannot be decided "
    "(a change of the matrix by {detail} of its norm mixes the two kinds); use a wider dtype; for a product of covariances "
    "s1 s2, take instead the root of the symmetric r s2 r with r = sqrtm(s1), which has the same eigenvalues",
    Failure.RANGES_DIFFER: "a and b are semidefinite and the range of neither contains that of the other (the smaller one "
    "leaves it by {detail} of its norm), so that their geometric mean is not continuous there; add a small multiple of I to "
    "both",
    Failure.GRADED_APART: "a and b are positive definite, but graded so differently that in no common units of rows and columns "
    "both have all eigenvalues above rounding: the smaller ones would be lost. Decimal arithmetic, which keeps them, is for "
    "up to 24 rows (12 of complex matrices), a number t, and not for compiled programs; use float64 for float32, or pass rtol "
    "to count small eigenvalues as zero",
    Failure.COMMON_EIGENVALUE: "the equation is singular to working precision: a and -b (or -aᴴ) share an eigenvalue, so "
    "there is no solution or infinitely many",
    Failure.WRONG_HALVES: "[[a, c], [d, b]] has {detail} eigenvalues in the half plane for b + d x. A solution needs as "
    "many as b has rows, so there is none; there may be one for the other half_plane",
    Failure.NO_GRAPH: "the invariant subspace is not the graph of a matrix, so the solution does not exist (it "
    "is infinite), although the numbers of eigenvalues in the half planes are right",
    Failure.NO_LINE: "the Newton iteration needs a vertical line between the spectra of a and -b, and none was found; use "
    'method="auto"',
    Failure.RECIPROCAL_EIGENVALUES: "the equation is singular to working precision: a has two eigenvalues with λ conj(μ) = "
    "1, so there is no solution or infinitely many",
    Failure.RECIPROCAL_PAIR: "the equation is singular to working precision: an eigenvalue of a times one of b is 1, so "
    "there is no solution or infinitely many; its separation, the smallest ‖a x b - x‖ / ‖x‖, is at most {detail}",
    Failure.COMMON_PENCIL_EIGENVALUE: "the equation is singular to working precision: the pencils a - λ c and d + λ b share "
    "an eigenvalue, or one of them is singular for every λ, so there is no solution or infinitely many; its separation, the "
    "smallest ‖a x b + c x d‖ / ‖x‖ in units in which the coefficients are near 1, is at most {detail}",
    Failure.COMMON_PAIR_EIGENVALUE: "the equations are singular to working precision: the pencils a - λ d and b - λ e share "
    "an eigenvalue, or one of them is singular for every λ, so there is no solution or infinitely many; their separation, "
    "the smallest ‖(a x - y b, d x - y e)‖ / ‖(x, y)‖, in units in which the coefficients are near 1, is at most {detail}",
    Failure.COMMON_DESCRIPTOR_EIGENVALUE: "the equation is singular to working precision: the pencil a - λ e has two "
    "eigenvalues with λ + conj(μ) = 0, or is singular for every λ, so there is no solution or infinitely many; its "
    "separation, the smallest ‖a x eᴴ + e x aᴴ‖ / ‖x‖ in units in which the coefficients are near 1, is at most {detail}",
    Failure.RECIPROCAL_DESCRIPTOR_EIGENVALUES: "the equation is singular to working precision: the pencil a - λ e has two "
    "eigenvalues with λ conj(μ) = 1, or is singular for every λ, so there is no solution or infinitely many; its "
    "separation, the smallest ‖a x aᴴ - e x eᴴ‖ / ‖x‖ in units in which the coefficients are near 1, is at most {detail}",
    Failure.UNSTABLE: "a is not stable, so the integral (or sum) that is asked for does not exist; with a "
    "descriptor e, stability is that of the pencil a - λ e",
    Failure.MORE_KEPT_POLES: "the model has {detail} poles that are not stable, which are kept; order counts them, and must be "
    "at least that",
    Failure.INFINITE_NORM: "a is not stable, so the norm of the model is infinite; split off its unstable part, or stabilise "
    "it; with a descriptor e, stability is that of the pencil a - λ e",
    Failure.BARELY_STABLE: "a is not stable to working precision: rounding in its entries decides whether it is, so that "
    "no digit of the answer is known; use a wider dtype",
    Failure.NOT_STABILISABLE: "the pair (a, b) is not stabilisable: no input moves the eigenvalue {detail} of a, which is "
    "not stable; give that mode an input, or remove it from the model",
    Failure.NOT_DETECTABLE: "the pair (a, q) is not detectable: the cost does not depend on the mode of the eigenvalue "
    "{detail} on the boundary of stability, so that the optimal control leaves it there; give that mode a weight in q",
    Failure.NOT_OBSERVED: "the pair (a, c) is not detectable: no output depends on the mode of the eigenvalue {detail} on the "
    "boundary of stability, so that the optimal control leaves it there; give that mode an output",
    Failure.HARDLY_OBSERVED: "no factor was found to working precision: the closed loop has the eigenvalue {detail}, too near "
    "the boundary of stability; give that mode a larger output, or use float64 for float32",
    Failure.NOT_STABILISING: "there is no stabilising solution: the closed loop keeps the eigenvalue {detail} on the "
    "boundary of stability, because [[q, s], [sᴴ, r]] is indefinite: a positive semidefinite one has a solution, and an H∞ "
    "or bounded-real problem one for a larger γ",
    Failure.SINGULAR_R: "r is singular to working precision where the equation needs an inverse, of r or in discrete time "
    "of r + bᴴ x b for some x: its reciprocal condition number is {detail}; give every input a weight in r, or remove the "
    "input",
    Failure.SINGULAR_E: "e is singular to working precision, its reciprocal condition number being {detail}; e must have "
    "an inverse: eliminate the algebraic equations first",
    Failure.NOT_A_MINIMUM: "no gain has the least cost, because r (in discrete time r + bᴴ x b) is not positive definite: "
    "its smallest eigenvalue is {detail}; solve_continuous_are and solve_discrete_are still solve the equation",
    Failure.HARDLY_STABILISABLE: "no method found the stabilising solution to working precision: the pair (a, b) becomes "
    "one that is not stabilisable when it changes by {detail} of its size; give those modes more input, or use float64 for "
    "float32",
    Failure.HARDLY_STABILISED: "no method found the stabilising solution to working precision: the closed loop has the "
    "eigenvalue {detail}, too near the boundary of stability; give that mode more weight in q, or use float64 for float32",
    Failure.LOST: "no method found the stabilising solution to working precision, although the conditions for one seem to "
    'hold (the backward error of the best iterate, which is the value of this error, is {detail}); try method="auto" if you '
    "chose another, and other units of states and inputs",
    Failure.HARDLY_SPLIT: "no solution was found to working precision; of the eigenvalues of [[a, c], [d, b]] the one "
    'nearest to the imaginary axis has a real part of {detail} times the largest; method="auto" tries all methods; use '
    "float64 for float32",
    Failure.OVERFLOW: "the answer is larger than the largest number of this dtype; use larger units, or float64 for float32",
    Failure.NOT_HERMITIAN: 'method="eigh" needs a Hermitian matrix',
    Failure.UNDECIDED_ZERO: "whether eigenvalues near zero are zero cannot be decided: their distance from zero, or from "
    "the next eigenvalue, is as small as their rounding errors (they belong to Jordan blocks, or the matrix is far from "
    "normal). Take rtol=0 if the matrix is exact; or an rtol above its relative rounding errors, such as 1e-12, with which "
    "eigenvalues that such errors may have moved from zero count as zero",
    Failure.NOT_CONVERGED: "the iteration did not converge; try another method=",
    Failure.NOT_REAL: "the polynomial iteration needs a real spectrum and eigenvectors not far from orthogonal; on this "
    'matrix it did not converge or lost its accuracy; use method="newton"',
    Failure.NOT_BY_PRODUCTS: "the polynomial iteration, the only one for a matrix that is sharded along an axis, needs a "
    "positive spectrum and eigenvectors not far from orthogonal; on this matrix it did not converge or lost its accuracy; "
    "gather it (full_tensor() in PyTorch) if it fits in memory",
    Failure.NOT_DEFINITE: "a and b have no geometric mean: inv(b) a has the eigenvalue {detail} on the negative real axis, "
    "or within rounding of it",
    Failure.LOST_PRODUCT: "neither a nor b is singular at rtol, but the iteration on the two does not converge, and the "
    "smallest eigenvalues of their product are below rounding; use a wider dtype, or a larger rtol with which they count as "
    "zero",
    Failure.NEGATIVE_PRODUCT: "b a has the eigenvalue {detail} on the negative real axis, or within rounding of it, where "
    "the coupled root does not exist",
    Failure.BOTH_SINGULAR: "a and b are both singular to working precision and not Hermitian positive semidefinite, so that "
    "their geometric mean is not defined; one of them must be nonsingular",
    Failure.NOT_MEASURED: "the pair (a, c) is not detectable: the measurements do not depend on the mode of the "
    "eigenvalue {detail} of a, which is not stable; measure that mode, or remove it from the model",
    Failure.NOT_DISTURBED: "the noise does not reach the eigenvalue {detail} of a on the boundary of stability, so no "
    "stationary estimator exists: the best gain for that mode falls to 0 with time; give it some noise by g and qn",
    Failure.NO_ESTIMATOR: "there is no stabilising solution: the estimator keeps the eigenvalue {detail} on the boundary of "
    "stability; give that mode some noise by g and qn",
    Failure.SINGULAR_RN: "rn is not positive definite where the gain needs the inverse of rn (in discrete time of c x cᴴ + "
    "rn): its smallest eigenvalue or its reciprocal condition number is {detail}; give every measurement some noise",
    Failure.HARDLY_MEASURED: "no method found the stabilising solution to working precision: the pair (a, c) becomes one "
    "that is not detectable when it changes by {detail} of its size; measure those modes better, or use float64 for float32",
    Failure.HARDLY_ESTIMATED: "no method found the stabilising solution to working precision: the estimator has the "
    "eigenvalue {detail}, too near the boundary of stability; give that mode more noise by g and qn, or use float64 for "
    "float32",
    Failure.NOT_A_COVARIANCE: "[[qn, nn], [nnᴴ, rn]] is not a covariance matrix, because it has the negative "
    "eigenvalue {detail}",
    Failure.NOT_ANTI_STABILISABLE: "the pair (a, b) has no anti-stabilising gain: no input moves the eigenvalue {detail} of "
    "a, which is stable or on the boundary of stability; give that mode an input, or remove it from the model",
    Failure.NOT_WEIGHTED: "the cost does not depend on the mode of the eigenvalue {detail} of a on the boundary of "
    "stability, so that every solution leaves it there; give that mode a weight in q",
    Failure.NOT_ANTI_STABILISING: "there is no anti-stabilising solution: the closed loop keeps the eigenvalue {detail} on "
    "the boundary of stability, because [[q, s], [sᴴ, r]] is indefinite: a positive semidefinite one has a solution, and an "
    "H∞ or bounded-real problem one for a larger γ",
    Failure.HARDLY_ANTI_STABILISABLE: "no method found the anti-stabilising solution to working precision: a stable mode of "
    "a becomes one that no input moves when (a, b) changes by {detail} of its size; give those modes more input, or use "
    "float64 for float32",
    Failure.HARDLY_ANTI_STABILISED: "no method found the anti-stabilising solution to working precision: the closed loop "
    "has an eigenvalue, {detail}, too near the boundary of stability; give that mode more weight in q, or use float64 for "
    "float32",
    Failure.ANTI_LOST: "no method found the anti-stabilising solution to working precision, although the conditions for one "
    "seem to hold (the backward error of the best iterate, which is the value of this error, is {detail}); try "
    'method="auto" if you chose another, and other units of states and inputs',
    Failure.ZERO_LOOP: "there is no anti-stabilising solution: the closed loop of every solution has the eigenvalue 0, "
    "because [[a, b], [sᴴ, r]] is singular, for s = 0 because a or r is; its reciprocal condition number is {detail}",
    Failure.NOT_STABILISABLE_BY_G: "the pair (a, g) is not stabilisable: g does not act on the mode of the eigenvalue "
    "{detail} of a, which is not stable, so that every closed loop a - g x keeps it; remove that mode from the model",
    Failure.NOT_ANTI_STABILISABLE_BY_G: "there is no anti-stabilising solution: g does not act on the mode of the "
    "eigenvalue {detail} of a, which is stable or on the boundary of stability; remove that mode from the model",
    Failure.NOT_STABILISING_WITH_G: "there is no stabilising solution: the closed loop keeps the eigenvalue {detail} on the "
    "boundary of stability, because q or g is indefinite: positive semidefinite ones have a solution, and an H∞ or "
    "bounded-real problem one for a larger γ",
    Failure.NOT_ANTI_STABILISING_WITH_G: "there is no anti-stabilising solution: the closed loop keeps the eigenvalue "
    "{detail} on the boundary of stability, because q or g is indefinite: positive semidefinite ones have a solution, and an "
    "H∞ or bounded-real problem one for a larger γ",
    Failure.HARDLY_STABILISABLE_BY_G: "no method found the stabilising solution to working precision: the pair (a, g) "
    "becomes one that is not stabilisable when it changes by {detail} of its size; use float64 for float32",
    Failure.HARDLY_ANTI_STABILISABLE_BY_G: "no method found the anti-stabilising solution to working precision: g no longer "
    "acts on a stable mode of a when (a, g) changes by {detail} of its size; use float64 for float32",
    Failure.SINGULAR_WITH_G: "I + g x is singular to working precision for the solution x; use float64 for float32",
    Failure.ZERO_LOOP_WITH_G: "there is no anti-stabilising solution: the closed loop of every solution has the eigenvalue "
    "0, because a is singular; its reciprocal condition number is {detail}",
    Failure.ON_LINE: "an eigenvalue lies on the line Re λ = {detail} to working precision, and so in neither half plane; move "
    "the line by another value of at, or use a wider dtype if the eigenvalue lies beside it in exact arithmetic",
    Failure.NEAR_LINE: "whether eigenvalues near at = {detail} equal it cannot be decided: their distance from it, or from the "
    "next eigenvalue, is as small as their rounding errors; move the line by another value of at, or choose an rtol above the "
    "relative rounding errors of the matrix",
    Failure.NOT_A_LINE: "at is {detail}, which is not a finite number",
    Failure.OVERLAP: "overlap is not positive definite to working precision: in units in which its diagonal is near 1, its "
    "smallest eigenvalue is {detail}; remove dependent functions from the basis (canonical orthogonalisation)",
    Failure.DEGENERATE: "the eigenvalues on both sides of the gap, {pair}, are equal to working precision, so that the lowest "
    "ones are not determined; choose lowest such that all copies of an eigenvalue are on one side, or a smaller rtol if they "
    "differ",
    Failure.LEVELS: "lowest needs a Hermitian matrix",
    Failure.TEMPERATURE: "kT is {detail}, which is not a positive finite number; spectral_projector is the limit kT = 0",
    Failure.POTENTIAL: "mu is {detail}, which is not a finite number",
    Failure.ELECTRONS: "electrons is {detail}; with occupations between 0 and 1, n states hold more than 0 and less than n "
    "electrons (of each spin)",
    Failure.WEIGHTS: "the weights must be numbers of at least 0, and not all 0; the smallest is {detail}",
    Failure.INDEFINITE_A: "A is not positive semidefinite: it has the eigenvalue {detail}; psd_project gives the nearest such "
    "matrix, and a larger rtol takes larger rounding errors for zero",
    Failure.INDEFINITE_B: "B is not positive semidefinite: it has the eigenvalue {detail}; psd_project gives the nearest such "
    "matrix, and a larger rtol takes larger rounding errors for zero",
    Failure.NOT_DEFINITE_A: "A is not positive definite to working precision: its smallest eigenvalue is {detail} times its "
    "largest, in units of rows and columns in which the diagonals are even; a singular matrix is infinitely far from definite "
    "ones: add a small multiple of I, or take bures_distance, which is finite for semidefinite matrices",
    Failure.NOT_DEFINITE_B: "B is not positive definite to working precision: its smallest eigenvalue is {detail} times its "
    "largest, in units of rows and columns in which the diagonals are even; a singular matrix is infinitely far from definite "
    "ones: add a small multiple of I, or take bures_distance, which is finite for semidefinite matrices",
    Failure.FEW_SAMPLES_X: "X has fewer than 2 samples, which are its rows, and so no covariance",
    Failure.FEW_SAMPLES_Y: "Y has fewer than 2 samples, which are its rows, and so no covariance",
    Failure.NOT_A_POINT: "a matrix of the collection is not positive definite to working precision; its index, and its smallest "
    "eigenvalue in units that make its diagonal 1: {pair}. Add a small multiple of the identity, or use bures_mean, which takes "
    "semidefinite matrices",
    Failure.NO_KARCHER_MEAN: "the iteration stopped at a residual of {detail}, too large for rounding errors; the value of this "
    "error is the best iterate",
    Failure.NOT_SEMIDEFINITE: "a matrix of the collection is not positive semidefinite; its index and its smallest eigenvalue: "
    "{pair}. psd_project gives the nearest such matrix, and a larger rtol takes larger rounding errors for zero",
    Failure.NO_DEFINITE_MATRIX: "the mean may not be unique: no matrix of positive weight has the range of all together. The "
    "largest rank of one, and that of all: {pair}. Add a small multiple of the identity to one of them",
    Failure.NO_BURES_MEAN: "the iteration stopped at a residual of {detail}, too large for rounding errors; the value of this "
    "error is the best iterate",
    Failure.MEAN_WEIGHT: "t is {detail}; it must be a number from 0 to 1",
    Failure.NOT_A_GEODESIC: "with t in an array, A and B must be Hermitian positive semidefinite; for other pairs pass t as "
    "a number",
    Failure.MORE_STATES: "the model needs {detail} states, more than order; choose a larger order, or a larger rtol with which "
    "weakly coupled states count as superfluous",
    Failure.ESCAPE: "the solution escapes to infinity before the time t, because the weights are indefinite: no control has "
    "the least cost over so long a horizon; shorten the horizon, or take a positive semidefinite [[q, s], [sᴴ, r]] and weight at "
    "the end",
    Failure.UNDECIDED_ESCAPE: "whether the solution escapes to infinity before the time t is not decided: neither r nor the rate "
    "of change of x at the end is semidefinite; a positive definite r is always decided",
    Failure.LONG_HORIZON: "over a horizon as long as t, rounding of the coefficients grows until no digit of the solution is "
    "known, or the solution overflows; shorten the horizon, or take the stabilising solution of solve_continuous_are, the limit "
    "for long horizons",
    Failure.NEGATIVE_TIME: "t, the time to the end of the horizon, is negative",
    Failure.INDEFINITE_STEP: "no control has the least cost, because r + bᴴ x b is not positive definite to working precision at "
    "a step of the horizon; in units in which its diagonal is near 1, this step and the smallest eigenvalue there are {pair}; "
    "give every input a weight in r, or its effect on the states one in q and qf",
    Failure.HIDDEN_MODE: "a mode of a on the imaginary axis gets no input or shows in no output, so that a closed loop keeps "
    "it; minimal_realization removes such modes",
    Failure.NO_RICCATI_PAIR: "no method found the solutions of both Riccati equations to working precision: a mode of a that is "
    "not stable gets hardly any input or shows hardly in the outputs, or the units of inputs and outputs are far apart",
    Failure.NOT_BOUNDED_REAL: "the H∞ norm of the model is not below gamma to working precision; choose a larger gamma: "
    "hinf_norm computes the norm",
    Failure.DUALITY_GAP: "no step reaches the relative duality gap that is asked for: the best one has the gap {detail}; choose "
    "a larger one",
    Failure.NOT_ORTHONORMAL: "W has neither orthonormal columns nor orthonormal rows: ‖WᴴW - I‖, or ‖WWᴴ - I‖ of a wide W, is "
    "{detail}; msign(W) is the nearest such matrix",
    Failure.ZERO_WEIGHT: "W is zero, and so on no sphere of the spectral norm",
    Failure.THRESHOLDS: "a threshold is {detail}; thresholds must satisfy 0 ≤ t, or 0 ≤ lower ≤ upper",
}


# Failures of iterations whose error carries the best iterate.
WITH_BEST_ITERATE = (
    Failure.NO_KARCHER_MEAN,
    Failure.NO_BURES_MEAN,
    Failure.LOST,
    Failure.HARDLY_STABILISABLE,
    Failure.HARDLY_STABILISED,
    Failure.HARDLY_MEASURED,
    Failure.HARDLY_ESTIMATED,
    Failure.HARDLY_ANTI_STABILISABLE,
    Failure.HARDLY_ANTI_STABILISED,
    Failure.ANTI_LOST,
    Failure.HARDLY_OBSERVED,
    Failure.HARDLY_STABILISABLE_BY_G,
    Failure.HARDLY_ANTI_STABILISABLE_BY_G,
)
