"""What a user can do wrong, and the exit code that says so.

A message is one sentence: what came, what was wanted, what to type. Anything that is not a
`UnigenError` is a bug of this package and ends with a traceback and exit code 1.
"""


class UnigenError(Exception):
    """A fault with a message meant for the person at the keyboard."""

    exit_code = 1


class UsageError(UnigenError):
    """A wrong call or configuration, a missing file, a locked folder (exit code 2)."""

    exit_code = 2


class MediaError(UnigenError):
    """Media or data that cannot be read: empty, cut, mislabeled or hostile (exit code 3)."""

    exit_code = 3


class CheckpointError(UnigenError):
    """Any fault of a checkpoint: missing, broken, pickled, misshapen or foreign (exit code 4)."""

    exit_code = 4


class ResourceError(UnigenError):
    """Out of disk, permission, memory or time, or a run that diverged (exit code 5)."""

    exit_code = 5
