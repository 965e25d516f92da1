"""Lyapunov equations a x + x aᴴ = q, Stein equations a x aᴴ - x + q = 0, and factors of their solutions."""
