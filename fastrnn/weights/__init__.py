"""Reading and writing weights: one module per file format."""
