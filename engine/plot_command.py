"""The command `bitwright plot`: what the window's views show, as a file."""

from pathlib import Path
from typing import Annotated

import typer

from engine import terminal
from engine.api.errors import FigureError
from engine.api.progress import Progress
from engine.api.views import ErrorOf, HistogramOf, Metric, OutliersOf, PictureOf, Source, View
from engine.options import Model, example
from engine.plot_options import LOSSY, Kind, PlotScope, What, refuse_idle

EXAMPLES = example(
    "bitwright plot ./Llama-3.2-1B --kind outliers --tensor blk.0.ffn_down.weight --out outliers.png",
    "bitwright plot ./Llama-3.2-1B --kind histogram --tensor blk.3.attn_q.weight --preset Q4_K_M --out q.svg",
)

DEFAULT_PRESET = "Q4_K_M"
"""What errors are those of, where nothing else is asked for."""

DEFAULT_ROLE = "ffn_down"


def plot(
    model: Model,
    kind: Annotated[
        Kind,
        typer.Option(
            help="A tensor's distribution; input channels by block; what a recipe loses; a matrix as it is.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file to write: .png, .svg or .csv.", show_default=False)],
    tensor: Annotated[
        str | None, typer.Option(help="A name in the source or in GGUF.", show_default=False)
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help=f"What would be made of it; of errors {DEFAULT_PRESET}.", show_default=False),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="A recipe (JSON) instead of a preset.", show_default=False)
    ] = None,
    imatrix: Annotated[
        Path | None, typer.Option(help="An importance matrix for either.", show_default=False)
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            help=f"Of outliers instead of --tensor; {DEFAULT_ROLE} without both.", show_default=False
        ),
    ] = None,
    metric: Annotated[
        Metric | None,
        typer.Option(
            help="Of outliers: ratio is the abs-max over the median channel's, error what a recipe loses; "
            "absmax without it.",
            show_default=False,
        ),
    ] = None,
    what: Annotated[
        What | None,
        typer.Option(
            help="Of a picture: the weights (value, the default), errors or codes.", show_default=False
        ),
    ] = None,
    scope: Annotated[
        PlotScope | None,
        typer.Option(
            help="Of a histogram the tensor (the default) or one channel or group; "
            "of errors by input channel (the default), output channel or group; of a prompt also by token.",
            show_default=False,
        ),
    ] = None,
    index: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Of a histogram with --scope: which channel, or which group counted row by row; 0.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        Source,
        typer.Option(help="Activations: inputs, and as errors what a recipe makes wrong of the outputs."),
    ] = "weights",
    activations: Annotated[
        Path | None,
        typer.Option(help="The file with statistics of activations.", show_default=False),
    ] = None,
    log: Annotated[
        bool | None,
        typer.Option(
            "--log/--linear",
            help="Counts, or the colors of magnitudes; of histograms --log is the default.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
) -> None:
    """Draw a figure of a model: histogram, outlier channels, errors of a recipe, a matrix as a picture."""
    from engine.checkpoint import open_checkpoint
    from engine.figures import figures
    from engine.figures.tensors import find_tensor, roles_of
    from engine.jobs.partial import check_place
    from engine.plotting import MAP, check_ending, write_plot
    from engine.quantization_errors import applied
    from engine.recipes import asked_recipe

    check_ending(out)
    refuse_idle(
        kind,
        source,
        activations=activations is not None,
        tensor=tensor is not None,
        lossy=[option for option, given in (("--preset", preset), ("--recipe", recipe)) if given],
        role=role,
        metric=metric,
        what=what,
        scope=scope,
        index=index,
    )
    if tensor is None and kind != "outliers":
        raise FigureError(f"Say what to draw with --tensor; `bitwright inspect {model}` lists the tensors.")
    if preset is None and recipe is None and (kind == "error" or metric == "error" or what in LOSSY):
        preset = DEFAULT_PRESET
    with open_checkpoint(model) as checkpoint:
        files = [file for file in (recipe, imatrix, activations) if file is not None]
        check_place(out, [*checkpoint.files, *files], overwrite)
        of_file = None if activations is None else str(activations)
        wanted = asked_recipe(checkpoint, preset, recipe, imatrix)
        if wanted is not None:
            terminal.warn(applied(checkpoint, wanted).plan.warnings)
        view: View
        match kind:
            case "histogram":
                assert scope != "token", "refused"
                view = HistogramOf(
                    source=source,
                    tensor=str(tensor),
                    scope=scope or "tensor",
                    index=index or 0,
                    recipe=wanted,
                    activations=of_file,
                )
            case "outliers":
                named = role or DEFAULT_ROLE
                if tensor is not None:
                    named = roles_of(checkpoint, find_tensor(checkpoint, tensor))[0]
                view = OutliersOf(
                    source=source, role=named, metric=metric or "absmax", recipe=wanted, activations=of_file
                )
            case "error":
                if scope == "tensor" or wanted is None:
                    raise FigureError("Errors are by input channel, output channel or group: --scope input.")
                view = ErrorOf(
                    source=source,
                    tensor=str(tensor),
                    scope=scope or "input",
                    recipe=wanted,
                    activations=of_file,
                )
            case "picture":
                _, _, width, height = MAP
                view = PictureOf(
                    source=source,
                    tensor=str(tensor),
                    what=what or "value",
                    height=height,
                    width=width,
                    recipe=wanted,
                    activations=of_file,
                )
        with terminal.progress() as listener:
            for drawn in figures(checkpoint, view):
                listener(Progress("read", drawn.done, drawn.total, "parts"))
    figure = drawn.figure.model_copy(update={"title": f"{drawn.figure.title}\n{_about(model, activations)}"})
    write_plot(out, figure, drawn.values, logarithmic=kind == "histogram" if log is None else log)
    terminal.say(f"{out}: {drawn.figure.title}")


def _about(model: Path, activations: Path | None) -> str:
    """The second line of the title: which model, on what text."""
    from engine.activations import read_activations

    name = model.resolve().name
    if activations is None:
        return name
    with read_activations(activations) as found:
        return f"{name} · {found.ran.in_short}"
