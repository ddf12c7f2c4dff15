"""Kinds of tensors that blocks have in common, as the tab of outliers and the engine name them."""

from app.models.outliers import Layer
from app.state import Row

OUTPUTS = "output"
"""In activations: what blocks give to the next one; no tensor of the model."""


def role_of(row: Row) -> str:
    """ "ffn_down" of blk.3.ffn_down.weight; in the source's words where GGUF has no name for it."""
    name = row.key.removesuffix(".weight")
    if row.index is None:
        return f".{name}.".replace(f".{row.block}.", ".*.", 1).strip(".")
    return name.removeprefix(f"blk.{row.block}.")


def matrices_by_role(rows: list[Row]) -> dict[str, dict[int, Layer]]:
    """The matrices of the blocks by role, each by block; of several experts in a block the first."""
    found: dict[str, dict[int, Layer]] = {}
    for row in rows:
        if row.block is not None and len(row.shape) > 1 and row.sources:
            found.setdefault(role_of(row), {}).setdefault(row.block, Layer(row.key, row.name, row.block))
    return found


def block_outputs(rows: list[Row]) -> dict[int, Layer]:
    """What the blocks give to the next one."""
    blocks = sorted({row.block for row in rows if row.block is not None})
    return {block: Layer("", f"blk.{block}.{OUTPUTS}", block) for block in blocks}
