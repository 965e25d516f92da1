"""Functions of singular values and eigenvalues: clipping, thresholds, the nearest semidefinite matrix."""
