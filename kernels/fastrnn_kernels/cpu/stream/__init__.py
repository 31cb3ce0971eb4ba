"""Streams: a step compiled for the sizes of a model, and the ways into it."""
