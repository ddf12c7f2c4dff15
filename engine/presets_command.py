"""The command `bitwright presets`: what each preset would make of a model."""

import json
from pathlib import Path
from typing import Annotated

import typer

from engine import terminal
from engine.api.plan import Planner
from engine.api.preset_sizes import NAMES, preset_size
from engine.api.recipe import Choice, Recipe
from engine.options import AsJson, Model, example

EXAMPLES = example(
    "bitwright presets ./Llama-3.2-1B", "bitwright presets model.gguf --imatrix imatrix.gguf --json"
)


def presets(
    model: Model,
    imatrix: Annotated[
        Path | None,
        typer.Option(help="An importance matrix: with one, some presets mix otherwise.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List all presets with the size of the file and the bits per weight that each would give."""
    from engine.checkpoint import open_checkpoint
    from engine.preparation import read_recipes_importance, recipes_facts
    from engine.recipes import with_importance
    from engine.summary import export_summary

    base = with_importance(Recipe(default=Choice(format="F32")), imatrix)
    importance = recipes_facts(base, read_recipes_importance(base))
    with open_checkpoint(model) as checkpoint:
        export = export_summary(checkpoint)
    planner = Planner(export.tensors, importance)
    found = [preset_size(base, name, export, planner) for name in NAMES]
    if as_json:
        print(json.dumps([one.model_dump() for one in found], indent=1))
    else:
        terminal.show_presets(found, importance=importance is not None)
