"""The plan: fallbacks, tensors kept in float, rules that match nothing."""

from dataclasses import dataclass

import pytest

from engine.api.model import Role
from engine.api.plan import Planner, make_plan
from engine.api.presets import ModelFacts
from engine.api.recipe import Choice, Recipe, Rule


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    role: Role = Role.Q
    block: int | None = 0
    sources: tuple[str, ...] = ()
    stored: str = ""
    copyable: bool = False
    fixed: str = ""


@pytest.mark.parametrize(
    ("asked", "columns", "given", "row_bytes"),
    [
        ("Q4_K", 512, "Q4_K", 288),
        ("Q4_K", 896, "Q5_0", 616),
        ("Q5_K", 32, "Q5_1", 24),
        ("Q6_K", 64, "Q8_0", 68),
        ("Q4_K", 172, "F16", 344),
        ("Q4_0", 33, "F16", 66),
        ("BF16", 33, "BF16", 66),
    ],
)
def test_fallback_where_rows_do_not_divide(asked, columns, given, row_bytes):
    plan = make_plan(Recipe(default=Choice(format=asked)), [Tensor("blk.0.attn_q.weight", (3, columns))])
    assert plan.tensors[0].format == given
    assert plan.tensors[0].bytes == 3 * row_bytes
    assert (plan.tensors[0].note is None) == (asked == given)


def test_small_tensors_stay_f32_and_say_why():
    tensors = [
        Tensor("blk.0.attn_norm.weight", (256,), Role.NORM),
        Tensor("blk.0.ffn_gate_inp.weight", (8, 256), Role.ROUTER),
        Tensor("blk.0.attn_q.bias", (256,), Role.BIAS),
    ]
    plan = make_plan(Recipe(default=Choice(format="Q4_K")), tensors)
    assert [tensor.format for tensor in plan.tensors] == ["F32"] * 3
    assert all("kept in F32" in (tensor.note or "") for tensor in plan.tensors)


def test_rules_that_match_nothing_are_reported():
    rules = [Rule(match="ffn_dwon", format="Q6_K"), Rule(match=r"q\.w", blocks="9", format="Q6_K")]
    plan = make_plan(
        Recipe(rules=[*rules, Rule(match="q", format="Q8_0")], default=Choice(format="Q4_K")),
        [Tensor("blk.0.attn_q.weight", (4, 256))],
    )
    assert plan.warnings == [
        "rule 1 ('ffn_dwon') matches no tensor of this model",
        r"rule 2 ('q\.w', blocks 9) matches no tensor of this model",
    ]
    assert plan.tensors[0].rule == 2


def test_a_rule_for_tensors_that_stay_f32_has_no_effect():
    recipe = Recipe(rules=[Rule(match="norm", format="Q8_0")], default=Choice(format="Q4_K"))
    plan = make_plan(recipe, [Tensor("blk.0.attn_norm.weight", (256,), Role.NORM)])
    assert plan.warnings == ["rule 1 ('norm') has no effect: every tensor it matches is kept in F32"]


def test_integers_and_types_without_an_encoder_stay_and_are_counted():
    tensors = [
        Tensor("blk.0.attn_q.weight", (4, 256)),
        Tensor("blk.0.ids", (5,), Role.OTHER, stored="I32", copyable=True, fixed="I32"),
        Tensor("blk.0.old.weight", (2, 256), stored="Q1_0", copyable=True, fixed="Q1_0"),
    ]
    recipe = Recipe(rules=[Rule(match="ids|old", format="F32")], default=Choice(format="Q4_K"))
    plan = make_plan(recipe, tensors)
    told = [(tensor.format, tensor.bytes, tensor.copied, tensor.kept) for tensor in plan.tensors[1:]]
    assert told == [("I32", 20, True, True), ("Q1_0", 72, True, True)]
    assert plan.tensors[1].note == "kept in I32, which is not quantized"
    assert plan.warnings == [
        "rule 1 ('ids|old') has no effect: every tensor it matches is kept in I32 or Q1_0",
        "2 tensors are stored as I32, Q1_0, which are not quantized; they are copied byte for byte",
    ]
    assert make_plan(recipe, tensors[1:]).warnings == plan.warnings[:1]


def test_formats_that_do_not_fit_are_summed_up():
    tensors = [Tensor(f"blk.{i}.attn_q.weight", (4, columns)) for i, columns in enumerate((64, 64, 33, 256))]
    plan = make_plan(Recipe(default=Choice(format="Q4_K")), tensors)
    assert plan.warnings == [
        "2 tensors get Q5_0 instead of Q4_K: 256 does not divide rows of 64",
        "1 tensor gets F16 instead of Q4_K: 256 does not divide rows of 33",
    ]


def test_a_rule_overruled_by_a_later_one_is_not_reported():
    rules = [Rule(match="q", format="Q6_K"), Rule(match="q", format="Q8_0")]
    plan = make_plan(
        Recipe(rules=rules, default=Choice(format="Q4_K")), [Tensor("blk.0.attn_q.weight", (4, 256))]
    )
    assert plan.warnings == []


def test_bits_per_weight_counts_everything():
    tensors = [Tensor("a", (2, 256)), Tensor("n", (256,), Role.NORM)]
    plan = make_plan(Recipe(default=Choice(format="Q4_K")), tensors)
    assert plan.bits_per_weight == 8 * (2 * 144 + 256 * 4) / (3 * 256)


def test_the_recipe_of_a_preset_is_made_once_for_a_model():
    planner = Planner([Tensor("blk.0.attn_v.weight", (4, 256), Role.V)])
    plain, weighed = ModelFacts("llama", 1), ModelFacts("llama", 1, has_importance=True)
    assert planner.recipe_of("IQ3_XXS", plain) is planner.recipe_of("IQ3_XXS", plain)
    assert planner.recipe_of("IQ3_XXS", plain) != planner.recipe_of("IQ3_XXS", weighed)
    assert planner.recipe_of("IQ3_XXS", plain) != planner.recipe_of("IQ3_S", plain)


def test_members_of_a_role_of_a_block_and_of_both():
    places = [(Role.EMBEDDING, None), (Role.Q, 0), (Role.K, 0), (Role.Q, 1), (Role.OUTPUT, None)]
    planner = Planner(Tensor(f"t{place}", (4, 256), *kind) for place, kind in enumerate(places))
    assert planner.members(Role.Q, None) == [1, 3]
    assert planner.members(None, 0) == [1, 2]
    assert planner.members(Role.Q, 1) == [3]
    assert planner.members(Role.OUTPUT, None) == [4]
    assert planner.members(Role.V, None) == planner.members(None, 7) == []
