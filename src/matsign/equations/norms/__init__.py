"""H₂ and H∞ norms of linear systems ẋ = a x + b u, y = c x + d u and x⁺ = a x + b u, y = c x + d u."""
