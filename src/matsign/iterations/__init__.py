"""Iterations on stacks of matrices, made of products and inverses."""
