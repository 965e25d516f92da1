"""Direct methods by LAPACK on the CPU: the reference beside the iterations, and their fall-back."""
