"""Options and arguments that several commands of the command line share."""

from pathlib import Path
from typing import Annotated

import typer

from engine.api.jobs import LEAST_MEMORY
from engine.api.units import parse_size, size


def example(*lines: str) -> str:
    """The epilog of a command's help: examples to copy."""
    return "\n\n".join(["Example:", *(f"[bold]{line}[/]" for line in lines)])


def bytes_of(text: str) -> int:
    """The bytes of "8GB". Raises `typer.BadParameter`."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _memory(text: str) -> int:
    limit = bytes_of(text)
    if limit < LEAST_MEMORY:
        raise typer.BadParameter(
            f"even the leanest job takes at least {size(LEAST_MEMORY)}, and the model comes on top."
        )
    return limit


Model = Annotated[
    Path,
    typer.Argument(
        help="A Hugging Face folder, .safetensors, .gguf or pytorch_model.bin.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores by default.")]
MemoryLimit = Annotated[
    int | None,
    typer.Option(
        parser=_memory,
        metavar="SIZE",
        help="The most memory to use, such as 8GB; by default what the machine can give.",
        show_default=False,
    ),
]
JobId = Annotated[str, typer.Argument(help="The job's id, or its beginning.", show_default=False)]
