"""Steps along manifolds."""
