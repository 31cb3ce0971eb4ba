"""Products: register blocks, and the panels of weights that they read."""
