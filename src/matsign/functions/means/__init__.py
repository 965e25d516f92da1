"""Means of positive semidefinite matrices."""
