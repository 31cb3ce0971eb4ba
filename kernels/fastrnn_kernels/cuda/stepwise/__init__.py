"""The path of a launch to a step, which takes any shape."""
