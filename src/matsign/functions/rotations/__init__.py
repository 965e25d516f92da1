"""Nearest rotations and alignment of points."""
