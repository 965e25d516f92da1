"""Sylvester equations."""
