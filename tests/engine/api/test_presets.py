"""Presets against the types that llama-quantize itself printed, tensor by tensor."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.api.errors import RecipeError
from engine.api.formats import FORMATS
from engine.api.mixtures import Place, preset_recipe
from engine.api.model import Role
from engine.api.plan import Planner, make_plan
from engine.api.presets import ALIASES, COPY, PRESETS, ModelFacts, preset_groups, preset_refusal
from engine.checkpoint.names import identify

MADE = Path(__file__).with_name("mixtures.json")
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
            group=heads // shape.get("attention.head_count_kv", heads),
        )
        tensors = tensors_of(shape)
        plan = make_plan(preset_recipe(preset, facts, tensors), tensors)
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


def numbers(blocks: str) -> list[int | None]:
    """'0-2,5' -> 0, 1, 2, 5; '' -> no block."""
    if not blocks:
        return [None]
    ends = [part.partition("-") for part in blocks.split(",")]
    return [block for first, _, last in ends for block in range(int(first), int(last or first) + 1)]


@pytest.fixture(scope="module")
def models() -> dict:
    return json.loads(MADE.read_text())["models"]


@pytest.mark.parametrize("has_importance", [False, True])
def test_same_types_where_blocks_differ(models, has_importance):
    """Attention or a feed-forward in some blocks only, several in one, encoder and decoder, odd names."""
    for name, model in models.items():
        facts = ModelFacts(**model["facts"], has_importance=has_importance)
        tensors = []
        for kind, shape, blocks in model["tensors"]:
            for block in numbers(blocks):
                one = kind.replace("*", str(block))
                tensors.append(Tensor(one, tuple(shape), identify(one, None, gguf=True).role, block))
        planner = Planner(tensors)
        for preset, recorded in model["types"].items():
            plan = planner.plan(planner.recipe_of(preset, facts))
            got = {tensor.name: tensor.format for tensor in plan.tensors if not tensor.kept}
            wanted = dict.fromkeys(got, PRESETS[preset].format)
            others = recorded.get("imatrix", recorded["plain"]) if has_importance else recorded["plain"]
            for kind, formats in others.items():
                for form, blocks in formats.items():
                    wanted |= {kind.replace("*", str(block)): form for block in numbers(blocks)}
            assert got == wanted, (name, preset)
            assert not any(warning.startswith("rule") for warning in plan.warnings)
        for preset in {*PRESETS} - {*model["types"]}:
            assert FORMATS[PRESETS[preset].format].exact or preset_refusal(preset, facts)


def test_more_bits():
    assert [i for i in range(4) if Place(i, 4).has_more_bits] == [2, 3]
    assert [i for i in range(16) if Place(i, 16).has_more_bits] == [0, 1, 4, 7, 10, 13, 14, 15]


def test_mxfp4_is_for_experts_alone():
    tensors = [
        Tensor("output.weight", (256, 256), Role.OUTPUT, None),
        Tensor("blk.0.attn_q.weight", (256, 256), Role.Q, 0),
        Tensor("blk.0.ffn_down_exps.weight", (4, 256, 256), Role.EXPERT, 0),
    ]
    plan = make_plan(preset_recipe("MXFP4_MOE", ModelFacts("llama", 1, experts=4), tensors), tensors)
    assert [tensor.format for tensor in plan.tensors] == ["Q8_0", "Q8_0", "MXFP4"]


def test_mxfp4_without_experts_is_refused():
    with pytest.raises(RecipeError, match="Q8_0 is the same here"):
        preset_recipe("mxfp4_moe", ModelFacts("llama", 1), [])


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases(alias):
    facts = ModelFacts("llama", 12)
    tensors = [Tensor(f"blk.{block}.attn_v.weight", (256, 256), Role.V, block) for block in range(12)]
    recipe = preset_recipe(alias.lower(), facts, tensors)
    assert recipe == preset_recipe(alias + "_M", facts, tensors)
    assert [rule.match for rule in recipe.rules] == [r"attn_(v|qkv|kv_b)\.weight$"] * len(recipe.rules)


def test_rules_speak_for_all_blocks_that_are_of_one_mind():
    tensors = [
        Tensor(f"blk.{block}.{name}.weight", (256, 256), role, block)
        for block in range(16)
        for name, role in (("attn_v", Role.V), ("ffn_down", Role.DOWN))
        if name == "ffn_down" or block % 2
    ]
    recipe = preset_recipe("Q3_K_M", ModelFacts("llama", 16), tensors)
    assert {(rule.match.partition("(")[0], rule.blocks, rule.format) for rule in recipe.rules} == {
        ("attn_", "1,3", "Q5_K"),
        ("attn_", "5,7,9,11,13,15", "Q4_K"),
        ("ffn_down", "0", "Q5_K"),
        ("ffn_down", "1-15", "Q4_K"),
    }


def test_groups_hold_every_preset_once_by_its_bits():
    groups = preset_groups()
    assert sorted(name for names in groups.values() for name in names) == sorted((*PRESETS, COPY))
    assert [groups["1 bit"], groups["As it is"]] == [["IQ1_M", "IQ1_S", "TQ1_0"], [COPY]]
    assert groups["4 bits"] == ["Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "MXFP4_MOE"]


def test_unknown_preset():
    with pytest.raises(RecipeError, match=re.escape("Unknown preset 'Q4_K_X'; known: F32")):
        preset_recipe("Q4_K_X", ModelFacts("llama", 2), [])
