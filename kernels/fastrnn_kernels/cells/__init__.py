"""The equations, and what a cell is."""
