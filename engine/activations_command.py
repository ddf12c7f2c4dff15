"""Options of `bitwright stats` about activations, what they ask for, and what the job has written."""

from pathlib import Path
from typing import Annotated

import typer

from engine import terminal
from engine.api.errors import CalibrationError
from engine.api.jobs import ActivationsRequest, ActivationsResult
from engine.api.statistics import Estimator
from engine.api.units import size
from resources import CALIBRATION_TEXT

SAMPLE = "sample"
"""Stands for the text that comes with the program."""

Calibration = Annotated[
    list[Path] | None,
    typer.Option(
        help="Statistics of activations, too, on a text (.txt, .md, .jsonl), a folder of them, or "
        f"`{SAMPLE}`; more than once for more.",
        show_default=False,
    ),
]
Prompt = Annotated[
    str | None, typer.Option(help="The same on this text alone, as it is.", show_default=False)
]
Windows = Annotated[
    int | None, typer.Option(min=1, help="At most N windows of the text; 128.", show_default=False)
]
Length = Annotated[int | None, typer.Option(min=8, help="Tokens of a window; 512.", show_default=False)]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=(1 << 32) - 1,
        help="Chooses the windows, and the tokens of percentiles; 0.",
        show_default=False,
    ),
]
RangeOf = Annotated[
    Estimator | None,
    typer.Option(
        "--range", help="Columns of the range that activations would be clipped to.", show_default=False
    ),
]
ActivationsOut = Annotated[
    Path | None,
    typer.Option(help="Keep the statistics of activations in this file (.activations).", show_default=False),
]


OF_TEXTS = {
    "windows": "--windows",
    "length": "--length",
    "seed": "--seed",
    "output": "--activations-out",
    "memory_limit": "--memory-limit",
}
"""Options that say something of activations alone, by what they set."""


def request_of(
    model: Path,
    calibration: list[Path] | None,
    prompt: str | None,
    *,
    ranges: bool,
    **settings: int | str | None,
) -> ActivationsRequest | None:
    """What is asked of activations; None where nothing is. `settings` that are None are left as they are.

    Raises `CalibrationError`.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if calibration is None and prompt is None:
        idle = [option for name, option in OF_TEXTS.items() if given.get(name) not in (None, "")]
        if ranges or idle:
            option = "--range" if ranges else idle[0]
            raise CalibrationError(f"Name a text with --calibration or --prompt: {option} is of activations.")
        return None
    if calibration is not None and prompt is not None:
        raise CalibrationError("Activations are of a text or of a prompt: leave out one of the two.")
    if prompt is not None and not prompt.strip():
        raise CalibrationError("The prompt is empty: type a text.")
    cut = [OF_TEXTS[name] for name in ("windows", "length") if name in given]
    if prompt is not None and cut:
        raise CalibrationError(f"A prompt is run as it is, not in windows: leave out {cut[0]}.")
    texts = [str(CALIBRATION_TEXT if str(path) == SAMPLE else path) for path in calibration or []]
    return ActivationsRequest(model=str(model), texts=texts, prompt=prompt or "", **given)


def show_captured(result: ActivationsResult, as_json: bool) -> None:
    """What a job of activations has written."""
    terminal.warn(result.warnings)
    if as_json:
        print(result.model_dump_json())
        return
    terminal.say(
        f"{result.output}: {size(result.bytes)}, activations of {result.layers} layers on {result.ran}, "
        f"{result.seconds:.1f} s, peak memory {size(result.peak_private_bytes)}."
    )
