"""Model reduction of linear systems ẋ = a x + b u, y = c x: Hankel singular values and balanced truncation."""
