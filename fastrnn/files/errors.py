"""What is wrong with a file's content."""


class MisfitError(ValueError):
    """What is wrong with a model, to be told with the file's name."""
