"""How long work reports where it stands: one immutable event, one callable that takes it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a stage of a job stands.

    `stage` is a verb for the reader ("quantize", "check weights", "evaluate", "verify");
    `done` of `total` are counted in `unit` ("bytes", "steps", "passes": windows through blocks);
    `item` names what is in hand (a tensor or a block), or is empty.
    """

    stage: str
    done: int
    total: int
    unit: str
    item: str = ""


@dataclass(frozen=True)
class StagesForeseen:
    """What is still to come: seconds by the names of the stages, in their order."""

    seconds: dict[str, float]


Listener = Callable[[Progress], None]
"""Takes each event; must return quickly. May raise `KeyboardInterrupt` to cancel the work."""


def silent(event: Progress) -> None:
    """The listener that shows nothing."""
