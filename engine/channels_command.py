"""`bitwright stats --tensor`: one tensor by output channel, input channel or group."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine import terminal
from engine.api.recipe import Recipe

if TYPE_CHECKING:
    from engine.channel_errors import Channelled
    from engine.checkpoint import Checkpoint
    from engine.statistics_table import Row

SHOWN = 20
"""Channels in the table on the terminal."""

OneTensor = Annotated[
    str | None,
    typer.Option("--tensor", help="Of this tensor alone, a row a channel or group.", show_default=False),
]
ByScope = Annotated[
    str | None,
    typer.Option(
        "--scope",
        help="With --tensor: by output channel, input channel (so by default), or group of a format.",
        metavar="output|input|group",
        show_default=False,
    ),
]


def scope_of(scope: str | None, tensor: str | None) -> "Channelled":
    """Raises `typer.BadParameter` for one that is none, or without a tensor."""
    if tensor is None and scope is not None:
        raise typer.BadParameter(
            "says how one tensor is divided: name it with --tensor", param_hint="--scope"
        )
    match scope or "input":
        case "output":
            return "output"
        case "input":
            return "input"
        case "group":
            return "group"
    raise typer.BadParameter("must be output, input or group", param_hint="--scope")


def channels(
    checkpoint: "Checkpoint",
    tensor: str,
    scope: "Channelled",
    recipe: Recipe | None,
    threads: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Write the table, or print it."""
    from engine.channel_table import channel_rows
    from engine.statistics_table import json_text, write_table

    with terminal.progress() as listener:
        rows = channel_rows(checkpoint, tensor, scope, recipe, threads, listener)
    about: dict[str, object] = {"model": str(checkpoint.path), "tensor": tensor, "scope": scope}
    if recipe is not None:
        about["recipe"] = recipe.model_dump(mode="json", exclude_none=True)
    if out is not None:
        write_table(out, about, rows, "channels")
    if as_json:
        print(json_text(about, rows, "channels"))
    elif out is None:
        _show(rows, lost=recipe is not None)
    else:
        terminal.say(f"{out}: statistics of {len(rows):,} {_plural(scope)} of {terminal.printable(tensor)}.")


def _plural(scope: "Channelled") -> str:
    return "groups" if scope == "group" else f"{scope} channels"


def _show(rows: "list[Row]", *, lost: bool) -> None:
    """The worst of them: by what is lost, or by abs-max."""
    by = "squared_error" if lost else "absmax"
    worst = sorted(rows, key=lambda row: -_number(row[by]))[:SHOWN]
    places = [name for name in rows[0] if name in ("output_channel", "input_channel", "group")]
    figures = ["absmax", "mean", "std", "kurtosis", "beyond_6_sigma"]
    figures += ["squared_error", "snr_db", "cosine"] if lost else []
    shown = terminal.table(*(name.replace("_", " ") for name in (*places, *figures)), left=0)
    for row in worst:
        shown.add_row(
            *(f"{row[place]:,}" for place in places),
            *("" if row[name] is None else f"{_number(row[name]):.4g}" for name in figures),
        )
    terminal.out.print(shown)
    rest = (
        f"; the {len(worst)} with the largest {by.replace('_', ' ')} are shown"
        if len(worst) < len(rows)
        else ""
    )
    terminal.say(f"{len(rows):,} rows{rest}.")


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else -1.0
