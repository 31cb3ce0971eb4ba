"""The GPU's instructions, from Numba: functions of floats, rounding, what PTX alone has."""
