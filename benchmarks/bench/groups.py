"""The groups of cases, and how much of them a run measures; imports no array library."""

GROUPS = {
    "signs": "Signs, polar decompositions and projections",
    "powers": "Roots, powers and logarithms",
    "equations": "Sylvester and Lyapunov equations",
    "riccati": "Riccati equations",
    "batches": "Batches of small matrices",
    "derivatives": "Gradients in PyTorch",
    "compiled": "Programs compiled by jax.jit",
    "muon": "Orthogonalisation for Muon",
}
# How large the matrices are: each extent has those of the ones before it, too.
EXTENTS = ("quick", "usual", "long")
# Seconds for each case.
SECONDS = {"quick": 0.5, "usual": 2.5, "long": 4.0}
