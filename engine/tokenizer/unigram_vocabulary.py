"""SentencePiece's unigram as `tokenizer.json` has it, in the terms of its `tokenizer.model`."""

import base64
import binascii
from collections.abc import Iterator
from math import isfinite
from typing import Any

from engine.api.wording import shown
from engine.tokenizer.folder import TokenizerFileError
from engine.tokenizer.recognition import flat_steps
from engine.tokenizer.sentencepiece_model import UNIGRAM, SentencePieceModel


def read_unigram(tokenizer: dict[str, Any], source: str, notes: list[str]) -> SentencePieceModel:
    """Pieces, scores and normalization; types are filled in by the caller. Raises TokenizerFileError.

    `source` names the file; a step that llama.cpp has no setting for is left out, and told in `notes`.
    """
    model = tokenizer["model"]
    found = SentencePieceModel(algorithm=UNIGRAM, add_dummy_prefix=False, remove_extra_whitespaces=False)
    for row in model["vocab"] if isinstance(model["vocab"], list) else [None]:
        match row:
            case [str(piece), float() | int() as score] if not isinstance(score, bool) and isfinite(score):
                found.pieces.append(piece)
                found.scores.append(float(score))
            case _:
                raise TokenizerFileError(
                    f"The vocabulary in {source} holds {shown(row)}, where a piece and its score belong; "
                    "download the file again."
                )
    unknown = model.get("unk_id")
    found.special_ids = {"unk": unknown} if type(unknown) is int else {}
    left_out = [*_normalizer(tokenizer, found, source), *_pre_tokenizer(tokenizer, found)]
    if left_out:
        notes.append(
            f"{source} changes text before it is split in a way that llama.cpp cannot "
            f"({shown(', '.join(left_out))}); this is left out, and texts that it changes will get other "
            "tokens than in the original."
        )
    return found


def _normalizer(tokenizer: dict[str, Any], found: SentencePieceModel, source: str) -> Iterator[str]:
    """Reads the steps of the normalizer into `found`; yields the kinds of those that are left out."""
    for step in flat_steps(tokenizer.get("normalizer")):
        match step:
            case {"type": "Precompiled", "precompiled_charsmap": str(table)} if not found.charsmap:
                try:
                    found.charsmap = base64.b64decode(table, validate=True)
                except (binascii.Error, ValueError) as error:
                    raise TokenizerFileError(
                        f"The table that normalizes text in {source} (precompiled_charsmap) is damaged; "
                        "download the file again."
                    ) from error
            case {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " " | "▁"}:
                found.remove_extra_whitespaces = True
            case {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}:
                pass  # as all of SentencePiece does
            case {"type": "Prepend", "prepend": "▁"}:
                found.add_dummy_prefix = True
            case {"type": "Strip"} if step.get("strip_right") or step.get("strip_left"):
                pass  # with the runs of spaces, which a unigram of this kind always merges
            case _:
                yield str(step.get("type"))


def _pre_tokenizer(tokenizer: dict[str, Any], found: SentencePieceModel) -> Iterator[str]:
    for step in flat_steps(tokenizer.get("pre_tokenizer")):
        match step:
            case {"type": "Metaspace"}:
                scheme = step.get(
                    "prepend_scheme", "always" if step.get("add_prefix_space", True) else "never"
                )
                found.add_dummy_prefix = found.add_dummy_prefix or scheme != "never"
            case {"type": "WhitespaceSplit"}:
                found.remove_extra_whitespaces = True
            case _:
                yield str(step.get("type"))
