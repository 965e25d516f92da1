"""Linear algebra on stacks of matrices, shared by functions, equations and iterations."""
