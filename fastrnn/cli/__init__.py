"""The command line, a file to each group of commands."""
