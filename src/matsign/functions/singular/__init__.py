"""Leading singular values and vectors."""
