"""Model reduction."""
