"""The user's mistakes and the world's: each becomes one sentence on the terminal and exit code 2.

The text of every error is one sentence or two for a reader who knows nothing of the code:
what is wrong, where (file, tensor, rule), and what to do. No traceback is shown for them.
Anything that is not a `UserError` is a defect of ours.
"""


class UserError(Exception):
    """Something the user can mend; `str(error)` is shown as it is."""


class CheckpointError(UserError):
    """A source model that cannot be opened or read."""


class TokenizerError(UserError):
    """A tokenizer that is missing, unreadable or of an unknown kind."""


class RecipeError(UserError):
    """A recipe or preset that does not say what can be done."""


class ExportError(UserError):
    """A model that the chosen container cannot hold."""


class OutputError(UserError):
    """An output that cannot be written: no room, no permission, the input itself."""


class EvaluationError(UserError):
    """A measurement that cannot be made: no text, too short, no tokenizer."""


class CalibrationError(UserError):
    """Statistics of activations that cannot be gathered, read or merged."""


class FigureError(UserError):
    """A figure that cannot be drawn: no such tensor, no such channel, nothing known of it."""


class JobError(UserError):
    """A job that is unknown, still running, or no longer fits its sources."""


class ChangedError(JobError):
    """A job whose sources, recipe or libraries are others than when it began: to be started again."""


class MemoryLimitError(UserError):
    """Work that needs more memory than there is, or than it was allowed."""
