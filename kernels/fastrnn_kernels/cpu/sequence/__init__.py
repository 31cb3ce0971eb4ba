"""Whole sequences: the forward pass, backpropagation through time, and their division."""
