"""The path on which R stays on the multiprocessors for all steps of a pass."""
