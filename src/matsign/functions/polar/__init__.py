"""The polar decomposition and msign, cold and with a warm start."""
