"""Files of importance matrices: what is proposed and accepted, before it is laid out."""

from collections.abc import Sequence
from pathlib import Path

from app.models.run_request import model_name
from engine.api.outputs import partial_path

GGUF, OLDER = ".gguf", ".dat"
SUFFIX = ".imatrix.gguf"


def proposed_matrix(model: Path) -> str:
    """ "llama-3.2-1b.imatrix.gguf"."""
    return model_name(model) + SUFFIX


def matrix_name(text: str) -> str:
    """The name of the file that a field's text means: GGUF, unless it ends in .dat."""
    name = text.strip()
    return name if not name or name.lower().endswith((GGUF, OLDER)) else name + SUFFIX


def in_other_format(matrix: Path) -> Path:
    """A place for a copy: "a.imatrix.dat" for "a.imatrix.gguf", and the other way round."""
    known = matrix.suffix.lower() in (GGUF, OLDER)
    stem = matrix.stem if known else matrix.name
    return matrix.with_name(stem + (GGUF if matrix.suffix.lower() == OLDER else OLDER))


def is_there(output: Path) -> bool:
    """Whether a file of this name exists, or what an unfinished job has written of it."""
    return output.exists() or partial_path(output).exists()


def there(paths: Sequence[str]) -> list[str]:
    """Those that can still be seen: texts that were chosen at an earlier time may be gone."""
    found = []
    for path in paths:
        try:
            if Path(path).exists():
                found.append(path)
        except OSError:
            continue
    return found
