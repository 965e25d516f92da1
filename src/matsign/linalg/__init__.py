"""Linear algebra on stacks that functions, equations and iterations share."""
