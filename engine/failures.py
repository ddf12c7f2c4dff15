"""What is told of an error: a sentence for what the user can mend, a report for a defect of ours."""

import sys
import traceback
from typing import Literal

from engine.api.errors import ChangedError, MemoryLimitError, UserError
from engine.api.events import Failed
from engine.api.wording import for_window
from engine.jobs.limits import NO_MEMORY, out_of_memory


def failure(error: Exception, request: int | None) -> Failed:
    """The event for an error, of the request of that id. The trace of a defect goes to stderr, too."""
    if isinstance(error, UserError):
        notes = " ".join(getattr(error, "__notes__", []))
        said, hint = for_window(writable(str(error))), for_window(notes)
        return Failed(code=_code(error), message=said, hint=hint, id=request)
    if out_of_memory(error):
        return Failed(code="memory", message=NO_MEMORY, id=request)
    trace = writable("".join(traceback.format_exception(error)))
    print(trace, file=sys.stderr)
    said = writable(f"Something in Bitwright failed ({type(error).__name__}: {error}).")
    hint = "Please report it, with the details."
    return Failed(code="defect", message=said, hint=hint, traceback=trace, id=request)


def writable(text: str) -> str:
    """`text` without half characters, which files may hold and a message cannot."""
    return text.encode(errors="backslashreplace").decode()


def _code(error: UserError) -> Literal["user", "changed", "memory"]:
    """What the window can offer to do about it."""
    if isinstance(error, ChangedError):
        return "changed"
    return "memory" if isinstance(error, MemoryLimitError) else "user"
