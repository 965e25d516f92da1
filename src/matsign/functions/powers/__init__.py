"""Square roots, roots of any order, real powers and the logarithm."""
