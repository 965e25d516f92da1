"""Lyapunov and Stein equations."""
