"""What the window and the engine say to each other: JSON, one message a line, UTF-8.

The window starts `python -m engine serve`, reads `hello`, and writes requests to its stdin. An engine that
inspects answers any number of requests, each with its `id`; an engine that was given a job
(`quantize`, `calibrate`, `resume`) takes nothing more but `cancel`, and ends behind `done`, `stopped` or
`error`.
Long lists come in pages (`tensors`, `export_tensors`), so that no single message takes the reader long;
arrays lie in `.npy` files that a message names.
"""

from pydantic import BaseModel, ConfigDict

PROTOCOL = 3
"""Raised whenever a message changes its meaning; both sides must have the same."""

HEARTBEAT_SECONDS = 2.0
"""How often an engine says that it is alive, whatever it is doing."""

PAGE_NAMES = 2000
"""Tensor names in one page of a long list."""


class Message(BaseModel):
    """A request (`engine.api.requests`) or an event (`engine.api.events`)."""

    model_config = ConfigDict(extra="forbid")


def write(message: Message) -> bytes:
    """One line, its newline included."""
    return message.model_dump_json().encode() + b"\n"
