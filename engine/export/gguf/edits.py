"""Edits of metadata held against what the file holds: refused where they cannot be right."""

from collections.abc import Mapping

from engine.api.chat_template import template_fault
from engine.api.errors import RecipeError
from engine.api.gguf import GgufValue
from engine.api.metadata import Edit, edited, full_keys, is_template
from engine.api.wording import named
from engine.export.gguf.plan import Export

TOKENS = "tokenizer.ggml.tokens"


def remarks_on_edits(export: Export, edits: Mapping[str, Edit]) -> list[str]:
    """Sentences for edits that runtimes may not stand, and for keys to leave out that are not there.

    Raises RecipeError for those that contradict the file's own tensors and tokens, and for broken templates.
    """
    after = edited(export.metadata, edits)
    edits = full_keys(edits, export.metadata)
    for key in edits:
        _refuse_contradiction(export, key, after.get(key))
        _refuse_template(key, after.get(key))
    deep = [key for key in edits if key.startswith((f"{export.architecture}.", "tokenizer.ggml."))]
    absent = [key for key, value in edits.items() if value == "" and key not in export.metadata]
    said = []
    if deep:
        names = ", ".join(deep[:3]) + (", …" if len(deep) > 3 else "")
        said.append(f"metadata: runtimes go by {names}; a file with another value may not load, or not work")
    if absent:
        said.append(f"metadata: there is no {', '.join(absent[:3])} to leave out")
    return said


def broken_templates(metadata: Mapping[str, GgufValue]) -> list[str]:
    """A sentence for each chat template of the source that does not parse; edits that do not are refused."""
    said = []
    for key, value in metadata.items():
        if is_template(key) and isinstance(value.value, str):
            fault = template_fault(value.value)
            if fault is not None:
                said.append(
                    f"the source's chat template ({named(key)}) cannot be parsed ({fault}); it is kept, but "
                    "servers may refuse the file: set another one, or leave it out"
                )
    return said


def _refuse_template(key: str, value: GgufValue | None) -> None:
    if value is None or not is_template(key) or not isinstance(value.value, str):
        return
    fault = template_fault(value.value)
    if fault is not None:
        raise RecipeError(f"metadata: {key} is no chat template that programs can read: {fault}.")


def _refuse_contradiction(export: Export, key: str, value: GgufValue | None) -> None:
    tokens = export.metadata.get(TOKENS)
    count = len(tokens.value) if tokens is not None and isinstance(tokens.value, list) else None
    if key.startswith("tokenizer.ggml.") and key.endswith("_token_id"):
        if value is not None and count and type(value.value) is int and not 0 <= value.value < count:
            raise RecipeError(
                f"metadata: {key} cannot be {value.value}: the vocabulary has {count:,} tokens, "
                f"0 to {count - 1}."
            )
        return
    fact = _facts(export, count).get(key)
    if fact is None:
        return
    number, what = fact
    before = export.metadata.get(key)
    if before is not None and before.value != number:
        return  # this architecture counts in another way
    if value is None:
        if before is not None and not key.endswith(".vocab_size"):
            raise RecipeError(f"metadata: {key} cannot be left out: no runtime loads a model without it.")
    elif value.value != number:
        raise RecipeError(
            f"metadata: {key} cannot be {named(value.value)}: the file holds {number:,} {what}."
        )


def _facts(export: Export, tokens: int | None) -> dict[str, tuple[int, str]]:
    """Keys whose numbers the file's own contents tell, and of what."""
    found = {}
    blocks = {tensor.block for tensor in export.tensors if tensor.block is not None}
    if blocks:
        found[f"{export.architecture}.block_count"] = (len(blocks), "blocks")
    if tokens:
        found[f"{export.architecture}.vocab_size"] = (tokens, "tokens")
    for tensor in export.tensors:
        if tensor.name == "token_embd.weight":
            key = f"{export.architecture}.embedding_length"
            found[key] = (tensor.shape[-1], "values in a row of its embedding")
    return found
