"""Bytes and arrays of files, read without trusting them: nothing here knows models."""
