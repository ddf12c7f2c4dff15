"""What the run sheet proposes and accepts, before it is laid out: names, folders, formats, texts."""

import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

from app.state import State
from engine.api.jobs import LEAST_MEMORY
from engine.api.lm_studio import DEFAULT_PUBLISHER, lm_studio_path, models_folder
from engine.api.metadata import PRE_TOKENIZER
from engine.api.outputs import part_path, partial_path
from engine.api.plan import ExportSummary, Plan
from engine.api.recipe import GgufOptions, Recipe
from engine.api.units import parse_size, size
from resources import EVALUATION_TEXT, SAMPLE_MODEL

SUFFIX = ".gguf"
WINDOW_TOKENS = 512
BYTES_PER_TOKEN = 4
"""English text in common vocabularies; good enough to say about how long a text is."""

ONE_FILE = "one file"
SPLITS = ("2 GB", "4 GB", "16 GB", "50 GB")
LEAST_SPLIT = 1_000_000

QUICK_WINDOWS = 16
"""8,192 tokens: enough to tell formats apart, and done in moments with a small model."""


def proposed_name(state: State) -> str:
    """ "llama-3.2-1b-Q4_K_M.gguf": the model, and what its recipe started from."""
    assert state.path is not None, "a model is open"
    return f"{model_name(state.path)}-{_kind(state)}{SUFFIX}"


def model_name(path: Path) -> str:
    """The name that a model's path has for people: of shards that of their folder."""
    if path.suffix == SUFFIX:
        return path.stem
    return path.parent.name if path.is_file() else path.name


def _kind(state: State) -> str:
    """What the recipe started from, where it is still that."""
    version = state.document.version
    assert version is not None, "a model is open"
    edited = version.recipe.rules != version.base.rules or version.recipe.default != version.base.default
    return "custom" if edited else Path(version.name).stem


def pre_tokenizers(export: ExportSummary | None, recipe: Recipe, kind: str) -> dict[str, str | None]:
    """What to choose from -> the name for the recipe; nothing where the tokenizer is no byte-level BPE.

    `kind` is that of the model: a GGUF file states its name.
    """
    if export is None or not export.pre_tokenizers:
        return {}
    now = next((entry.text for entry in export.metadata if entry.key == PRE_TOKENIZER), "default")
    chosen = recipe.output.options.pre_tokenizer
    names = [*export.pre_tokenizers, *([chosen] if chosen and chosen not in export.pre_tokenizers else [])]
    return {f"{'as it is' if kind == 'gguf' else 'recognised'} ({now})": None, **{n: n for n in names}}


def lm_studio_output(state: State) -> Path:
    """Where LM Studio would list the file. Raises `OutputError`."""
    assert state.path is not None, "a model is open"
    recipe = state.document.recipe
    edits = recipe.output.options.metadata if recipe else {}
    named = edits.get("general.name", edits.get("name"))
    stated = state.export.metadata if state.export else []
    title = named or next((entry.text for entry in stated if entry.key == "general.name"), state.path.stem)
    return lm_studio_path(DEFAULT_PUBLISHER, str(title), _kind(state))


def will_be_made(folder: str) -> bool:
    """Whether a run makes this folder: it is not there, and lies in LM Studio's."""
    models = models_folder()
    return models is not None and Path(folder).is_relative_to(models) and not is_folder(folder)


def proposed_folder(model: Path, remembered: str) -> Path:
    """Where the last file went, else beside the model, else the home: the first that can be written."""
    beside = [] if model == SAMPLE_MODEL else [model.parent]
    for folder in [*([Path(remembered)] if remembered else []), *beside]:
        if is_folder(str(folder)) and os.access(folder, os.W_OK):
            return folder
    return Path.home()


def is_folder(path: str) -> bool:
    """Whether a folder can be seen there; a name that no disk or user has is none."""
    try:
        return Path(path).expanduser().is_dir()
    except (OSError, RuntimeError):
        return False


def something_there(output: Path, count: int) -> bool:
    """Whether one of the `count` files exists, or what an unfinished job has written of it."""
    files = [part_path(output, index, count) for index in range(count)]
    return any(path.exists() for file in files for path in (file, partial_path(file)))


class Written(NamedTuple):
    """In how many files `output` is written, how many bytes all take, and whether something is there."""

    files: int
    bytes: int
    there: bool
    output: Path | None


def written(export: ExportSummary, plan: Plan, options: GgufOptions, output: Path | None) -> Written:
    """Goes through all tensors, and looks for every file. `output` None: there can be none."""
    count = export.file_count(plan, options)
    there = output is not None and something_there(output, count)
    return Written(count, export.file_bytes(plan, options), there, output)


def files_label(output: Path, count: int, most: int) -> tuple[str, str]:
    """The names of an output's files: in short, and at most `most` of them one a line."""
    name = partial(part_path, output, count=count)
    if count == 1:
        return output.name, output.name
    short = f"{name(0).name} …\n{name(count - 1).name}"
    lines = [name(index).name for index in range(min(count, most))]
    return short, "\n".join(lines + ["…"] * (count > most))


def split_text(most: int | None) -> str:
    """What the field says for a size of files; one that reads back as the same."""
    if most is None:
        return ONE_FILE
    return size(most) if parse_size(size(most)) == most else f"{most} B"


def split_size(text: str) -> int | None:
    """The bytes of a file that a field's text means; None: one file, also where `split_refusal` says why."""
    if text.strip() in ("", ONE_FILE) or split_refusal(text):
        return None
    return parse_size(text)


def split_refusal(text: str) -> str:
    """Why a text is no size of files, one sentence; empty where it is."""
    if text.strip() in ("", ONE_FILE):
        return ""
    try:
        most = parse_size(text)
    except ValueError as error:
        return f"Split: {error}"
    return "" if most >= LEAST_SPLIT else f"Split: a file has at least {size(LEAST_SPLIT)}."


def file_name(text: str) -> str:
    """The name of the file that a field's text means: its suffix is added where it lacks."""
    name = text.strip()
    return name if not name or name.lower().endswith(SUFFIX) else name + SUFFIX


def refusal(name: str, folder: str) -> str:
    """Why there can be no file `name` in `folder`, one sentence; empty where there can."""
    if not name or name.lower() == SUFFIX:
        return "Give the file a name."
    if "/" in name or not name.isprintable():
        return "The name must not hold “/” or control characters; the folder has its own field."
    if len(os.fsencode(name)) > 247:  # 255, and room for ".partial"
        return "The name is too long for a file."
    if not folder.strip():
        return "Choose a folder."
    if not is_folder(folder.strip()) and not will_be_made(folder.strip()):
        return f"There is no folder {folder.strip()}."
    return ""


def memory_limit(text: str) -> int | None:
    """The bytes that a field's text means; None: no limit, also where `memory_refusal` says why not."""
    if not text.strip() or memory_refusal(text):
        return None
    return parse_size(text)


def memory_refusal(text: str) -> str:
    """Why a text is no limit of memory, one sentence; empty where it is, or is empty."""
    if not text.strip():
        return ""
    try:
        limit = parse_size(text)
    except ValueError as error:
        return f"Memory limit: {error}"
    if limit < LEAST_MEMORY:
        return f"Memory limit: the engine takes at least {size(LEAST_MEMORY)}, and the model comes on top."
    return ""


def formats_line(plan: Plan) -> str:
    """ "28 Q4_K · 3 Q6_K · 9 F32", the most frequent first."""
    counts = Counter(tensor.format for tensor in plan.tensors)
    return " · ".join(f"{count:,} {name}" for name, count in counts.most_common())


def text_windows(text: Path) -> int | None:
    """About how many windows a text has, None where it cannot be read."""
    try:
        return text.stat().st_size // (BYTES_PER_TOKEN * WINDOW_TOKENS)
    except OSError:
        return None


def text_label(text: Path) -> str:
    """The text's name and about how long it is."""
    name = "built-in sample text" if text == EVALUATION_TEXT else text.name
    windows = text_windows(text)
    return name if windows is None else f"{name}, about {windows:,} windows of {WINDOW_TOKENS} tokens"
