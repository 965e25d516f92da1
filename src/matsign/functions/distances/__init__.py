"""Distances between positive semidefinite matrices, from the matrices, factors or samples."""
