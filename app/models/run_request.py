"""What the run sheet proposes and accepts, before it is laid out: names, folders, formats, texts."""

import os
from collections import Counter
from pathlib import Path

from app.state import State
from engine.api.jobs import LEAST_MEMORY
from engine.api.plan import Plan
from engine.api.units import parse_size, size
from resources import EVALUATION_TEXT, SAMPLE_MODEL

SUFFIX = ".gguf"
WINDOW_TOKENS = 512
BYTES_PER_TOKEN = 4
"""English text in common vocabularies; good enough to say about how long a text is."""

QUICK_WINDOWS = 16
"""8,192 tokens: enough to tell formats apart, and done in moments with a small model."""


def proposed_name(state: State) -> str:
    """ "llama-3.2-1b-Q4_K_M.gguf": the model, and what its recipe started from."""
    version = state.document.version
    assert state.path is not None, "a model is open"
    assert version is not None, "a model is open"
    path = state.path
    shards = path.is_file() and path.suffix != SUFFIX  # then the folder has the name
    stem = path.stem if path.suffix == SUFFIX else path.parent.name if shards else path.name
    return f"{stem}-{'custom' if version.edited else Path(version.name).stem}{SUFFIX}"


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


def something_there(output: Path) -> bool:
    """Whether a file of this name exists, or what an unfinished job has written of it."""
    return output.exists() or output.with_name(output.name + ".partial").exists()


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
    if not is_folder(folder.strip()):
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
        return f"Memory limit: the engine alone takes {size(LEAST_MEMORY)}, and the model comes on top."
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
