"""Spectral projectors and smeared occupation."""
