"""Presets against the types that llama-quantize itself printed, tensor by tensor."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.api.errors import RecipeError
from engine.api.model import Role
from engine.api.plan import make_plan
from engine.api.presets import PRESETS, ModelFacts, more_bits, preset_recipe

RECORDS = Path(__file__).parents[4] / "shared" / "facts" / "presets.json"
ROLES = {
    "token_embd": Role.EMBEDDING,
    "output": Role.OUTPUT,
    "attn_q": Role.Q,
    "attn_k": Role.K,
    "attn_v": Role.V,
    "attn_qkv": Role.QKV,
    "attn_output": Role.O,
    "ffn_gate": Role.GATE,
    "ffn_up": Role.UP,
    "ffn_down": Role.DOWN,
}


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    role: Role
    block: int | None
    sources: tuple[str, ...] = ()


def tensors_of(shape: dict) -> list[Tensor]:
    """The matrices of a recorded shape; columns from the recorded lengths."""
    found = []
    for name in shape["presets"]["F16"]["plain"]:
        part = name.replace("blk.*.", "").removesuffix(".weight")
        role = Role.EXPERT if part.endswith("_exps") else ROLES[part]
        columns = shape["feed_forward_length" if "ffn_down" in part else "embedding_length"]
        blocks = range(shape["block_count"]) if name.startswith("blk.") else [None]
        found += [Tensor(name.replace("*", str(i)), (256, columns), role, i) for i in blocks]
    return found


def expected(runs: str, blocks: int) -> list[str]:
    """'Q6_K*2 Q4_K*6' -> one type a block."""
    types = []
    for run in runs.split():
        name, _, count = run.partition("*")
        types += [name] * (int(count) if count else blocks)
    return types


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("has_importance", [False, True])
def test_same_types_as_llama_quantize(preset, has_importance):
    if not RECORDS.exists():
        pytest.skip("the records of llama-quantize's choices are not on this machine")
    for shape in json.loads(RECORDS.read_text())["shapes"].values():
        facts = ModelFacts(
            architecture=shape["architecture"],
            blocks=shape["block_count"],
            experts=shape.get("expert_count", 0),
            tied=shape["tied"],
            has_importance=has_importance,
        )
        plan = make_plan(preset_recipe(preset, facts), tensors_of(shape))
        got = {tensor.name: tensor.format for tensor in plan.tensors}
        recorded = shape["presets"][preset]
        types = recorded.get("imatrix", recorded["plain"]) if has_importance else recorded["plain"]
        wanted = {}
        for name, runs in types.items():
            for i, one in enumerate(expected(runs, shape["block_count"])):
                wanted[name.replace("*", str(i))] = one
        wanted = {name: wanted[name] for name in got}
        assert got == wanted


def test_more_bits():
    assert more_bits(4) == [2, 3]
    assert more_bits(16) == [0, 1, 4, 7, 10, 13, 14, 15]


def test_presets_name_known_formats_for_every_number_of_blocks():
    for name in PRESETS:
        for blocks in range(1, 12):
            preset_recipe(name, ModelFacts("llama", blocks))


def test_unknown_preset():
    with pytest.raises(RecipeError, match=re.escape("Unknown preset 'Q4_K_X'; known: F16")):
        preset_recipe("Q4_K_X", ModelFacts("llama", 2))
