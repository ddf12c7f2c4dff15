"""Presets against the types that llama-quantize itself printed, tensor by tensor."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.api.errors import RecipeError
from engine.api.model import Role
from engine.api.plan import Planner, make_plan
from engine.api.presets import ALIASES, COPY, PRESETS, ModelFacts, has_more_bits, preset_groups, preset_recipe

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
    stored: str = ""
    copyable: bool = False
    fixed: str = ""


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


@pytest.fixture(scope="module")
def shapes() -> dict:
    if not RECORDS.exists():
        pytest.skip("the records of llama-quantize's choices are not on this machine")
    return json.loads(RECORDS.read_text())["shapes"]


UNRECORDED = {"F32", "MXFP4_MOE"}


@pytest.mark.parametrize("preset", [name for name in PRESETS if name not in UNRECORDED])
@pytest.mark.parametrize("has_importance", [False, True])
def test_same_types_as_llama_quantize(shapes, preset, has_importance):
    for shape in shapes.values():
        heads = shape["attention.head_count"]
        facts = ModelFacts(
            architecture=shape["architecture"],
            blocks=shape["block_count"],
            experts=shape.get("expert_count", 0),
            tied=shape["tied"],
            has_importance=has_importance,
            columns=shape["embedding_length"],
            group=heads // shape.get("attention.head_count_kv", heads),
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


def test_every_recorded_preset_is_ours(shapes):
    for shape in shapes.values():
        assert set(shape["presets"]) == set(PRESETS) - UNRECORDED


def test_more_bits():
    assert [i for i in range(4) if has_more_bits(i, 4)] == [2, 3]
    assert [i for i in range(16) if has_more_bits(i, 16)] == [0, 1, 4, 7, 10, 13, 14, 15]


def test_mxfp4_is_for_experts_alone():
    tensors = [
        Tensor("output.weight", (256, 256), Role.OUTPUT, None),
        Tensor("blk.0.attn_q.weight", (256, 256), Role.Q, 0),
        Tensor("blk.0.ffn_down_exps.weight", (4, 256, 256), Role.EXPERT, 0),
    ]
    plan = make_plan(preset_recipe("MXFP4_MOE", ModelFacts("llama", 1, experts=4)), tensors)
    assert [tensor.format for tensor in plan.tensors] == ["Q8_0", "Q8_0", "MXFP4"]


def test_shared_experts_count_among_the_first_of_the_lowest_presets():
    """llama-quantize raises as many matrices that lead out of feed-forwards as an eighth of the blocks."""
    tensors = [
        Tensor(f"blk.{block}.ffn_down_{kind}.weight", (4, 256, 256), role, block)
        for block in range(24)
        for kind, role in (("exps", Role.EXPERT), ("shexp", Role.DOWN))
    ]
    facts = ModelFacts("qwen2moe", 24, experts=60, shared_experts=True)
    plan = make_plan(preset_recipe("IQ2_XS", facts), tensors)
    raised = [tensor.name for tensor in plan.tensors if tensor.format == "Q2_K"]
    assert raised == [
        "blk.0.ffn_down_exps.weight",
        "blk.0.ffn_down_shexp.weight",
        "blk.1.ffn_down_exps.weight",
    ]


def test_mxfp4_without_experts_is_refused():
    with pytest.raises(RecipeError, match="Q8_0 is the same here"):
        preset_recipe("mxfp4_moe", ModelFacts("llama", 1))


def test_no_rule_of_a_preset_is_idle_where_queries_keys_and_values_are_one():
    planner = Planner([Tensor("blk.0.attn_qkv.weight", (256, 256), Role.QKV, 0)])
    recipe = preset_recipe("IQ3_XXS", ModelFacts("gpt2", 1))
    assert any("attn_k" in warning for warning in planner.plan(recipe).warnings)
    pruned = planner.plan(planner.recipe_of("IQ3_XXS", ModelFacts("gpt2", 1)))
    assert not pruned.warnings
    assert [tensor.format for tensor in pruned.tensors] == ["IQ3_S"]


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases(alias):
    facts = ModelFacts("llama", 12)
    assert preset_recipe(alias.lower(), facts) == preset_recipe(alias + "_M", facts)


def test_presets_name_known_formats_for_every_number_of_blocks():
    for name in PRESETS:
        for blocks in range(12):
            preset_recipe(name, ModelFacts("llama", blocks, experts=4))


def test_groups_hold_every_preset_once_by_its_bits():
    groups = preset_groups()
    assert sorted(name for names in groups.values() for name in names) == sorted((*PRESETS, COPY))
    assert [groups["1 bit"], groups["As it is"]] == [["IQ1_M", "IQ1_S", "TQ1_0"], [COPY]]
    assert groups["4 bits"] == ["Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "MXFP4_MOE"]


def test_unknown_preset():
    with pytest.raises(RecipeError, match=re.escape("Unknown preset 'Q4_K_X'; known: F32")):
        preset_recipe("Q4_K_X", ModelFacts("llama", 2))
