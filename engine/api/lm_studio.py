"""Where LM Studio looks for models: <its folder>/<publisher>/<model>-GGUF/<model>-<type>.gguf.

Source: LM Studio's documentation, "Import models" (lmstudio.ai/docs/app/advanced/import-model).
"""

import re
from contextlib import suppress
from pathlib import Path

from engine.api.errors import OutputError

POINTER = ".lmstudio-home-pointer"
"""In the user's home; holds the path of LM Studio's own where that was moved."""

DEFAULT_PUBLISHER = "bitwright"


def models_folder(home: Path | None = None) -> Path | None:
    """The folder of LM Studio's models, or None where it was never started on this machine."""
    home = home or Path.home()
    places = [home / ".lmstudio", home / ".cache" / "lm-studio"]
    with suppress(OSError, UnicodeDecodeError):
        places.insert(0, Path((home / POINTER).read_text(encoding="utf-8").strip()))
    return next((place / "models" for place in places if place.is_absolute() and place.is_dir()), None)


def lm_studio_path(publisher: str, model: str, kind: str, home: Path | None = None) -> Path:
    """The file that LM Studio lists as `publisher`'s `model`. `kind`: "Q4_K_M". Raises OutputError."""
    folder = models_folder(home)
    if folder is None:
        raise OutputError(
            "LM Studio has no folder on this machine (.lmstudio in your home): start it once, or name the "
            "file yourself (--out)."
        )
    name, publisher = _as_name(model), _as_name(publisher)
    if not name or not publisher:
        raise OutputError("The names of model and publisher need a letter or a digit each.")
    return folder / publisher / f"{name}-GGUF" / f"{name}-{_as_name(kind)}.gguf"


def _as_name(text: str) -> str:
    """The text as the name of a file or folder, with what such names cannot hold left out."""
    return re.sub(r"[^\w.+-]+", "-", text, flags=re.ASCII).strip("-.")
