"""Cells from their forward equations alone: traced once, differentiated, written as functions."""
