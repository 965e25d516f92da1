"""Algebraic Riccati equations."""
