"""What both doors, the terminal and the window's engine, do to their process before they work."""

import logging
import signal

STOPPING = (signal.SIGINT, signal.SIGTERM)


def stop_in_order() -> None:
    """Let Ctrl-C and SIGTERM raise `KeyboardInterrupt` in the main thread, once.

    What comes after is ignored: it must not disturb the writing down of where the job stands.
    """
    for number in STOPPING:
        signal.signal(number, _interrupt)


def ignore_stopping() -> None:
    """It is too late to stop: only the last words are missing. Call it in the main thread."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def keep_libraries_quiet() -> None:
    """Send libraries' warnings to the log: they belong in a job's, not between our lines."""
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(logging.NullHandler())


def _interrupt(number: int, frame: object) -> None:
    ignore_stopping()
    raise KeyboardInterrupt
