"""How an engine process ended, in words: from what the system and the engine itself said of it."""

import signal
from dataclasses import dataclass, field, replace
from typing import Literal

from engine.api.events import Done, Failed, ProgressMade, Stopped
from engine.api.jobs import Saved
from engine.api.units import size

How = Literal["done", "stopped", "failed", "killed", "crashed", "not started", "mismatch"]
Remedy = Literal["", "less memory", "start again"]
"""What may help a job that ended: to go on with less memory; only to be begun anew."""

CRASHES = {
    "SIGSEGV": "segmentation fault",
    "SIGABRT": "abort",
    "SIGBUS": "bus error: a file that it was reading was cut short, or its disk failed",
    "SIGILL": "illegal instruction",
    "SIGFPE": "arithmetic error",
    "SIGTRAP": "trap",
    "SIGSYS": "forbidden system call",
}
"""The signals that a process brings on itself, by name: what happened."""

REMEDIES: dict[str, Remedy] = {"memory": "less memory", "changed": "start again"}
"""What may help where an engine gives this code for its failure."""

TAIL_LINES = 40
"""Of an engine's last words, how much goes into a report that has no trace."""


PLAUSIBLE_SHARE = 0.25
"""Of the machine's memory: an engine that has used less was hardly ended for lack of it."""


@dataclass(frozen=True)
class Ending:
    """`code`: the exit code, or the signal's number. `sentence`: what happened and what it means.

    `trace`: the end of what the engine wrote, for a report; may be empty. `peak`: of its memory, bytes, 0
    where unknown.
    """

    how: How
    code: int
    sentence: str
    trace: str
    remedy: Remedy = ""
    peak: int = 0


@dataclass(frozen=True)
class Evidence:
    """What is known of a process that ended.

    `code` is an exit code, or a signal's number where `signalled`. `verdict`: why the window gave up on the
    process before it ended. `refusal`: why the system did not start it. `asked`: it was to end; `sent`: the
    signals it got from us. `last_word`, `progress`, `saved` and `peak` (bytes) are the last it said of these;
    `job`: it had a folder. `errors`: the end of its stderr. `memory`: of this machine, bytes, 0 if unknown.
    """

    code: int = 0
    signalled: bool = False
    verdict: tuple[How, str] | None = None
    refusal: str = ""
    greeted: bool = True
    asked: bool = False
    sent: frozenset[int] = field(default_factory=frozenset)
    last_word: Done | Stopped | Failed | None = None
    progress: ProgressMade | None = None
    saved: Saved | None = None
    job: bool = False
    peak: int = 0
    memory: int = 0
    errors: str = ""


def explain(seen: Evidence) -> Ending:
    """The ending in words. What the engine said last counts more than how it went after that."""
    return replace(_explain(seen), peak=seen.peak)


def _explain(seen: Evidence) -> Ending:
    if seen.verdict:
        how, sentence = seen.verdict
        return Ending(how, seen.code, sentence, _trace(seen.errors))
    if seen.refusal:
        return _not_started(seen, seen.refusal)
    if isinstance(seen.last_word, Done):
        return Ending("done", seen.code, "Finished.", "")
    if isinstance(seen.last_word, Stopped):
        return _stopped(seen)
    if seen.signalled and seen.code not in seen.sent:
        return _struck(seen)
    if isinstance(seen.last_word, Failed):
        failed = seen.last_word
        return Ending(
            "failed", seen.code, sentence_of(failed), failed.traceback, REMEDIES.get(failed.code, "")
        )
    if seen.asked:
        return _stopped(seen)
    if not seen.greeted:
        return _not_started(seen, _last_line(seen.errors) or f"it ended at once, with exit code {seen.code}")
    sentence = f"The engine ended unasked, with exit code {seen.code}.{_saved(seen)}"
    return Ending("failed", seen.code, sentence, _trace(seen.errors))


def sentence_of(failed: Failed) -> str:
    """The message of a failure, its hint behind it."""
    return f"{failed.message} {failed.hint}".strip()


def _not_started(seen: Evidence, reason: str) -> Ending:
    reason = reason.rstrip(".")
    sentence = f"The engine could not be started: {reason}. The installation may be damaged."
    return Ending("not started", seen.code, sentence, _trace(seen.errors))


def _stopped(seen: Evidence) -> Ending:
    sentence = f"Stopped on request.{_saved(seen)}" if seen.job else "Stopped on request, before it began."
    return Ending("stopped", seen.code, sentence, "")


def _struck(seen: Evidence) -> Ending:
    """Ended by a signal that was not ours."""
    name = signal_name(seen.code)
    if name in CRASHES:
        sentence = f"The engine crashed ({CRASHES[name]}){_place(seen, ' at ')}.{_saved(seen)}"
        return Ending("crashed", seen.code, sentence, _trace(seen.errors))
    if name == "SIGKILL" and (not seen.peak or seen.peak >= seen.memory * PLAUSIBLE_SHARE):
        circumstances = ", ".join(part for part in (_peak(seen), _place(seen, "at ")) if part)
        behind = f" ({circumstances})" if circumstances else ""
        sentence = f"The engine was stopped by the system, most likely out of memory{behind}.{_saved(seen)}"
        return Ending("killed", seen.code, sentence, _trace(seen.errors), "less memory")
    circumstances = ", ".join(part for part in (name, _peak(seen), _place(seen, "at ")) if part)
    sentence = f"The engine was ended by the system or another program ({circumstances}).{_saved(seen)}"
    return Ending("killed", seen.code, sentence, _trace(seen.errors))


def signal_name(number: int) -> str:
    """ "SIGSEGV" for 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _peak(seen: Evidence) -> str:
    if not seen.peak:
        return ""
    return f"peak {portion(seen.peak, seen.memory)}" if seen.memory else f"peak {size(seen.peak)}"


def _place(seen: Evidence, before: str) -> str:
    return before + seen.progress.item if seen.progress and seen.progress.item else ""


def _saved(seen: Evidence) -> str:
    """A further sentence on what is left, for a job that has a folder."""
    if not seen.job:
        return ""
    return f" {saved_sentence(seen.saved)}" if seen.saved else " What was finished is saved."


def saved_sentence(saved: Saved) -> str:
    """ "17 of 32 blocks are saved." """
    if not saved.done:
        return "Nothing is saved yet."
    return f"{saved} {'is' if saved.done == 1 else 'are'} saved."


def portion(part: float, whole: float) -> str:
    """Two sizes in bytes, the unit once where it is the same: "21.4 of 23 GB", "812 MB of 23 GB"."""
    first, second = size(part), size(whole)
    number, unit = first.split(" ")
    return f"{number if second.endswith(' ' + unit) else first} of {second}"


def _trace(errors: str) -> str:
    """Python's own trace of a crash, if there is one; else the last lines."""
    start = errors.rfind("Fatal Python error")
    if start >= 0:
        return errors[start:].strip()
    return "\n".join(errors.strip().splitlines()[-TAIL_LINES:])


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
