"""Layers, cells and what is made of them: parameters by name, calls, gradients."""
