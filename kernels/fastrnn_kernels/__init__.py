"""Recurrent kernels: the cells' equations, once, and the loops that run them per device.

The modules beside this one say what a cell is and hold the equations; `cpu` runs them.
Nothing here knows layers, parameters' names or frameworks: that is `fastrnn`'s part.
"""
