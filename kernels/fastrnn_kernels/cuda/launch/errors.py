"""What a launch may raise."""


class LaunchError(RuntimeError):
    """A kernel that the driver did not launch."""


class TooManyBlocksError(LaunchError):
    """A launch whose blocks wait for each other, of more blocks than can run at once.

    Nothing ran: another path may take the pass.
    """
