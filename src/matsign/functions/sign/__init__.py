"""The matrix sign function."""
