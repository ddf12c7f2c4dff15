"""Tokenizers in both directions: from a model's files to GGUF metadata, and from metadata to token ids.

A Hugging Face folder is first turned into the metadata that its GGUF file would get. So there is one
tokenizer, and the text of an evaluation has the same ids before and after the export, and in llama.cpp.
"""

from typing import TYPE_CHECKING

from engine.tokenizer.gguf import tokenizer_metadata
from engine.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from engine.checkpoint import Checkpoint

__all__ = ["Tokenizer", "load_tokenizer", "tokenizer_metadata"]


def load_tokenizer(checkpoint: "Checkpoint", pre_tokenizer: str | None = None) -> Tokenizer:
    """The tokenizer of an opened model: from a GGUF file's metadata, else from the files beside the weights.

    `pre_tokenizer` is the user's choice for such files, instead of the recognised one. Raises TokenizerError
    where there is none, or one of an unknown kind.
    """
    if checkpoint.kind == "gguf":
        return Tokenizer(checkpoint.metadata, str(checkpoint.path))
    config = checkpoint.config or {}
    size = config.get("vocab_size")
    rows = size if isinstance(size, int) else None
    notes: list[str] = []
    metadata = tokenizer_metadata(checkpoint.folder, rows, config, pre_tokenizer=pre_tokenizer, notes=notes)
    return Tokenizer(metadata, str(checkpoint.folder), notes)
