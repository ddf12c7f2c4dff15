"""The command `bitwright quantize`: its options made into a recipe and a request."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine import terminal
from engine.api.errors import EvaluationError, OutputError, RecipeError
from engine.api.jobs import Measure, QuantizeRequest, QuantizeResult
from engine.api.lm_studio import lm_studio_path
from engine.api.presets import COPY, PRESETS, preset_name
from engine.api.recipe import Choice, Recipe, load_recipe
from engine.api.units import size
from engine.options import AsJson, MemoryLimit, Model, Threads, bytes_of, example

if TYPE_CHECKING:
    from engine.preparation import Prepared

EXAMPLES = example(
    "bitwright quantize ./Llama-3.2-1B --preset Q4_K_M --out llama-q4.gguf",
    "bitwright quantize ./Llama-3.2-1B --recipe mine.json --dry-run",
    "bitwright quantize ./Llama-3.2-1B --preset Q6_K --out q6.gguf --measure wiki.test.raw --windows 16",
)

BLANK = Recipe(default=Choice(format="F32"))
"""To set options on that belong to no format."""


def quantize(
    model: Model,
    preset: Annotated[
        str | None, typer.Option(help=f"One of {', '.join((*PRESETS, COPY))}.", show_default=False)
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="A recipe (JSON) instead of a preset.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The GGUF file to write.", show_default=False)] = None,
    lm_studio: Annotated[
        str | None,
        typer.Option(
            help="Instead of --out: into LM Studio's folder, listed there as PUBLISHER's.",
            metavar="PUBLISHER",
            show_default=False,
        ),
    ] = None,
    output_tensor_type: Annotated[
        str | None, typer.Option(help="Format of the output matrix.", metavar="FORMAT", show_default=False)
    ] = None,
    token_embedding_type: Annotated[
        str | None, typer.Option(help="Format of the token embedding.", metavar="FORMAT", show_default=False)
    ] = None,
    tensor_type: Annotated[
        list[str] | None,
        typer.Option(
            help="A format for the tensors of a role or regex (searched in names as --dry-run shows them, "
            "and in GGUF's); again for others, the last match wins.",
            metavar="PATTERN=FORMAT",
            show_default=False,
        ),
    ] = None,
    imatrix: Annotated[
        Path | None,
        typer.Option(help="An importance matrix (GGUF or .dat) that weights the error.", show_default=False),
    ] = None,
    effort: Annotated[
        str | None,
        typer.Option(help="How long encoders search: fast or best (the default).", show_default=False),
    ] = None,
    split_max_size: Annotated[
        int | None,
        typer.Option(
            parser=bytes_of,
            help="Write files of at most this size, such as 2GB, named OUT-00001-of-00003.gguf and so on.",
            metavar="SIZE",
            show_default=False,
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            help="Set a key of the file's metadata, such as general.author=Me, or author=Me for short; "
            "KEY=@FILE for a file's text, KEY= to leave it out; again for others.",
            metavar="KEY=VALUE",
            show_default=False,
        ),
    ] = None,
    pre_tokenizer: Annotated[
        str | None,
        typer.Option(
            help="llama.cpp's name for how the tokenizer splits text, instead of the recognised one.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    threads: Threads = None,
    memory_limit: MemoryLimit = None,
    measure: Annotated[
        Path | None,
        typer.Option(
            help="A text: measure on it what was lost against MODEL.", metavar="TEXT", show_default=False
        ),
    ] = None,
    windows: Annotated[
        int | None,
        typer.Option(min=1, help="With --measure: on the first N windows only.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show plan, size, memory, disk and time; write nothing.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it exists, all files of it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Quantize a model into a GGUF file, as a job that can be resumed."""
    from engine.checkpoint import open_checkpoint
    from engine.export.gguf import export_tensors
    from engine.jobs.partial import check_place
    from engine.preparation import prepare, read_recipes_importance
    from engine.quantize import about_output, refuse, refuse_name, refuse_place
    from engine.quantize import quantize as run
    from engine.recipes import (
        model_facts,
        recipe_for_preset,
        with_effort,
        with_importance,
        with_metadata,
        with_options,
        with_tensor_types,
        with_types,
    )

    if preset is None and recipe is None:
        raise RecipeError("Say what to do with --preset or --recipe.")
    if preset is not None and recipe is not None:
        raise RecipeError("Give --preset or --recipe, not both.")
    if lm_studio is not None and out is not None:
        raise RecipeError("Give --out or --lm-studio, not both.")
    if out is None and lm_studio is None and not dry_run:
        raise RecipeError("Name the file to write with --out, or add --dry-run to see the plan alone.")
    if windows is not None and measure is None:
        raise EvaluationError("--windows says how much of a text is measured: name it with --measure.")

    def with_options_of(base: Recipe) -> Recipe:
        wanted = with_tensor_types(base, tensor_type or [])
        wanted = with_importance(wanted, imatrix)
        wanted = with_effort(wanted, effort)
        wanted = with_options(wanted, split_max_size=split_max_size, pre_tokenizer=pre_tokenizer)
        return with_metadata(wanted, metadata or [], checkpoint.metadata)

    own = None if recipe is None else load_recipe(recipe)
    kind = recipe.stem if recipe else preset_name(str(preset))
    with open_checkpoint(model) as checkpoint:
        if lm_studio is not None:
            out = lm_studio_path(lm_studio, checkpoint.title, kind)
        if recipe is not None and out is not None and out.exists() and out.samefile(recipe):
            raise OutputError(f"{out}: is the recipe; choose another name for the output.")
        # What is wrong by itself is said before the libraries are loaded, which takes seconds.
        blank = with_types(own or BLANK, False, output_tensor_type, token_embedding_type)
        blank = with_options_of(blank)
        read_recipes_importance(blank)
        if out is not None and blank.output.options.split_max_size is None:
            check_place(out, checkpoint.files, overwrite, make_folders=lm_studio is not None)
            refuse_name(out)
        wanted = own or recipe_for_preset(checkpoint, kind, has_importance=imatrix is not None)
        if output_tensor_type or token_embedding_type:
            tied = model_facts(checkpoint, export_tensors(checkpoint)).tied
            wanted = with_types(wanted, tied, output_tensor_type, token_embedding_type)
        wanted = with_options_of(wanted)
        request = QuantizeRequest(
            model=str(model),
            output=str(out or "model.gguf"),
            recipe=wanted,
            make_folders=lm_studio is not None,
            threads=threads,
            memory_limit=memory_limit,
            overwrite=overwrite,
            measure=None if measure is None else Measure(text=str(measure), windows=windows),
        )
        if dry_run:
            prepared = prepare(checkpoint, wanted)
            if out is not None:
                refuse_place(request, prepared)
                terminal.warn(about_output(request, prepared))
            _show_dry_run(prepared, request, as_json)
            if out is not None:
                refuse(request, prepared)
            return
    with terminal.progress() as listener:
        result = run(request, listener)
    show_quantized(result, as_json)


def _show_dry_run(prepared: "Prepared", request: QuantizeRequest, as_json: bool) -> None:
    """Raises `MemoryLimitError` behind it all where the limit or the machine cannot give what it takes."""
    from engine.estimate import needs, refuse_memory

    plan = prepared.plan
    terminal.warn(plan.warnings)
    needed = needs(prepared, request)
    if as_json:
        shown = {
            "predicted_bytes": prepared.size,
            "bpw": plan.bits_per_weight,
            "needs": needed.model_dump(mode="json"),
            "warnings": plan.warnings,
            "recipe": request.recipe.model_dump(mode="json", exclude_none=True),
            "tensors": [tensor.model_dump(mode="json") for tensor in plan.tensors],
        }
        print(json.dumps(shown, indent=1))
    else:
        terminal.show_plan(plan, prepared.size)
        terminal.show_needs(needed)
    refuse_memory(needed)


def show_quantized(result: QuantizeResult, as_json: bool) -> None:
    """What a quantize job has written, and what was measured on it."""
    terminal.warn(result.warnings)
    if as_json:
        print(result.model_dump_json())
        return
    others = len(result.files) - 1
    more = "" if others < 1 else " and 1 more file" if others == 1 else f" and {others} more files"
    terminal.say(
        f"{result.output}{more}: {result.bytes:,} bytes ({size(result.bytes)}), "
        f"{result.bpw:.4g} bits per weight, {result.seconds:.1f} s, "
        f"peak memory {size(result.peak_private_bytes)}. Read back and verified."
    )
    if result.report is not None:
        terminal.show_report(result.report)
