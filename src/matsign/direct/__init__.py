"""Direct methods by LAPACK on the CPU: references for the iterations, and their fallback."""
