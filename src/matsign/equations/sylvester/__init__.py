"""Sylvester equations a x + x b = q."""
