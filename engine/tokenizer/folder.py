"""The tokenizer files of a Hugging Face folder, read into one place and checked for shape."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.api.errors import CheckpointError, TokenizerError
from engine.api.wording import shown
from engine.checkpoint.errors import MissingPathError
from engine.checkpoint.files import read_json


class MissingTokenizerError(TokenizerError):
    """A folder without tokenizer files."""


class TokenizerFileError(TokenizerError):
    """A tokenizer file that is damaged, or holds something else than it should."""


@dataclass(frozen=True)
class AddedToken:
    """A token that was added to the vocabulary; `special` ones steer the model and are no text.

    `strips`: it takes white space beside it along.
    """

    text: str
    special: bool
    strips: bool = False


@dataclass
class TokenizerFolder:
    """`tokenizer_json` is {} without that file; `sentencepiece` is None without `tokenizer.model`.

    `tokenizer_config` is {} without its file. `added` is by id, from all files that name such tokens.
    """

    folder: Path
    tokenizer_json: dict[str, Any]
    sentencepiece: Path | None
    tokenizer_config: dict[str, Any]
    added: dict[int, AddedToken] = field(default_factory=dict)

    @property
    def tokenizer_json_path(self) -> Path:
        return self.folder / "tokenizer.json"

    def special_text(self, name: str) -> str | None:
        """The text of the "bos", "eos", … token as tokenizer_config.json gives it (a string or an object)."""
        return _content(self.tokenizer_config.get(f"{name}_token"))


def read_folder(folder: Path) -> TokenizerFolder:
    """Reads the tokenizer files of `folder`; raises MissingTokenizerError or TokenizerFileError."""
    json_path, model_path = folder / "tokenizer.json", folder / "tokenizer.model"
    if not json_path.is_file() and not model_path.is_file():
        raise MissingTokenizerError(
            f"{folder} has no tokenizer (looked for tokenizer.json and tokenizer.model); add the one that "
            "belongs to the model: runtimes and measuring need it."
        )
    found = TokenizerFolder(
        folder,
        tokenizer_json=read_if_there(json_path),
        sentencepiece=model_path if model_path.is_file() else None,
        tokenizer_config=read_if_there(folder / "tokenizer_config.json"),
    )
    # Later files win: tokenizer.json is what the fast tokenizer runs on.
    plain = read_if_there(folder / "added_tokens.json")
    decoder = found.tokenizer_config.get("added_tokens_decoder") or {}
    listed = found.tokenizer_json.get("added_tokens") or []
    try:
        found.added |= {int(token_id): AddedToken(text, False) for text, token_id in plain.items()}
        found.added |= {int(token_id): _added(entry) for token_id, entry in decoder.items()}
        found.added |= {int(entry["id"]): _added(entry) for entry in listed}
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise TokenizerFileError(
            f"The added tokens in {folder} (tokenizer.json, tokenizer_config.json, added_tokens.json) do "
            f"not have an id and a text each ({shown(error)}); download these files again."
        ) from error
    return found


def read_if_there(path: Path) -> dict[str, Any]:
    """The object in a JSON file, {} where there is no file; raises TokenizerFileError."""
    try:
        return read_json(path)[0]
    except MissingPathError:
        return {}
    except CheckpointError as error:
        raise TokenizerFileError(str(error)) from error


def _added(entry: dict[str, Any]) -> AddedToken:
    text = entry["content"]
    if not isinstance(text, str):
        raise TypeError(f"{shown(text)} is no text")
    strips = bool(entry.get("lstrip") or entry.get("rstrip"))
    return AddedToken(text, bool(entry.get("special")), strips)


def _content(entry: object) -> str | None:
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) else None
