"""Edits of a recipe: a dict of choices is the oracle; the rules stay few and readable."""

import json
import random
from dataclasses import dataclass

import pytest

from engine.api.editing import (
    format_for_bits,
    formats_for,
    is_pinned,
    outcome,
    outcomes,
    set_choice,
    set_pinned,
    with_pins,
)
from engine.api.formats import FORMATS, METHODS
from engine.api.mixtures import preset_recipe
from engine.api.model import Role
from engine.api.plan import Planner, make_plan
from engine.api.presets import PRESETS, ModelFacts
from engine.api.recipe import Choice, Recipe, Rule, parse_recipe

PARTS = {"q": Role.Q, "k": Role.K, "v": Role.V, "output": Role.O}
FEED = {"gate": Role.GATE, "up": Role.UP, "down": Role.DOWN}


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    role: Role
    block: int | None
    sources: tuple[str, ...]
    stored: str = ""
    copyable: bool = False
    fixed: str = ""


def outside(tied: bool) -> list[Tensor]:
    made = [Tensor("token_embd.weight", (64, 256), Role.EMBEDDING, None, ("model.embed_tokens.weight",))]
    made.append(Tensor("output_norm.weight", (256,), Role.NORM, None, ("model.norm.weight",)))
    return (
        made if tied else [*made, Tensor("output.weight", (64, 256), Role.OUTPUT, None, ("lm_head.weight",))]
    )


def in_block(block: int, name: str, role: Role, *shape: int, sources: tuple[str, ...] = ()) -> Tensor:
    one = (f"model.layers.{block}.{name}.weight",)
    return Tensor(f"blk.{block}.{name}.weight", shape, role, block, sources or one)


def dense(blocks: int, tied: bool = False) -> list[Tensor]:
    tensors = outside(tied)
    for block in range(blocks):
        tensors.append(in_block(block, "attn_norm", Role.NORM, 256))
        tensors += [in_block(block, f"attn_{part}", role, 64, 256) for part, role in PARTS.items()]
        tensors += [in_block(block, f"ffn_{part}", role, 64, 172) for part, role in FEED.items()]
    return tensors


def mixture(blocks: int) -> list[Tensor]:
    """Stacked experts: many sources make one tensor, three of a role in a block; q, k, v share a source."""
    tensors = outside(tied=False)
    for block in range(blocks):
        fused = (f"model.layers.{block}.qkv.weight",)
        tensors += [in_block(block, f"attn_{part}", PARTS[part], 64, 256, sources=fused) for part in "qkv"]
        tensors.append(in_block(block, "ffn_gate_inp", Role.ROUTER, 4, 256))
        for part in FEED:
            sources = tuple(f"model.layers.{block}.experts.{e}.{part}.weight" for e in range(4))
            tensors.append(in_block(block, f"ffn_{part}_exps", Role.EXPERT, 4, 64, 256, sources=sources))
    return tensors


def odd() -> list[Tensor]:
    """Names full of special characters, one the start of another, roles across blocks and none."""
    names = [
        "a",
        "a.b",
        "a+b",
        "(a|b)*",
        "a\\\\b",
        "^a$",
        "[a]",
        "a b",
        "a\n",
        "q",
        "layer.1",
        "layer.11",
        "é{2}",
    ]
    return [
        Tensor(f"t{place}", (2, 256), Role.OTHER if place % 3 else Role.Q, place % 2 or None, (name,))
        for place, name in enumerate(names)
    ]


MODELS = {
    "dense": dense(6),
    "tied": dense(3, tied=True),
    "mixture": mixture(4),
    "odd": odd(),
    "no block": [Tensor(f"w{i}", (4, 256), Role.OTHER, None, (f"s{i}",)) for i in range(9)],
}
HAND_MADE = Recipe(
    rules=[
        Rule(match="down", blocks="0-1,4-", method="rtn", format="Q6_K"),
        Rule(match="layer|attn", format="Q5_K"),
        Rule(match="attn_q", format="Q8_0", pinned=True),
        Rule(match="nothing_like_this", format="Q4_0"),
        Rule(match="o", format="Q5_0"),
        Rule(match=".", blocks="2", format="Q4_1"),
        Rule(match="k", blocks="1", format="F16", pinned=True),
    ],
    default=Choice(format="Q4_K"),
)


def choices(recipe: Recipe, tensors: list[Tensor]) -> dict[str, tuple[str, str, bool]]:
    """What is asked for each tensor that a recipe decides on, and whether it is pinned."""
    plan = make_plan(recipe, tensors)
    return {
        tensor.name: (tensor.method, tensor.asked, is_pinned(recipe, tensor))
        for tensor in plan.tensors
        if not tensor.kept
    }


def gesture(tensors: list[Tensor], dice: random.Random) -> list[int]:
    """Places as a person selects them: a role, a block, a role in some blocks, everything, or any."""
    some = dice.choice(tensors)
    kind = dice.randrange(6)
    near = {some.block, dice.choice(tensors).block}
    return [
        place
        for place, tensor in enumerate(tensors)
        if [
            tensor.role == some.role,
            tensor.block == some.block,
            tensor.role == some.role and tensor.block in near,
            tensor is some,
            dice.random() < 0.4,
            dice.random() < 0.97,
        ][kind]
    ]


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("model", MODELS)
def test_random_edits_do_what_a_dict_of_choices_does(model, seed):
    tensors, dice = MODELS[model], random.Random(f"{model} {seed}")
    planner = Planner(tensors)
    facts = ModelFacts("llama", 6, experts=4)
    start = [HAND_MADE, *(preset_recipe(name, facts, tensors) for name in PRESETS)]
    recipe = dice.choice(start)
    oracle = choices(recipe, tensors)
    for _ in range(12):
        places, kind = gesture(tensors, dice), dice.random()
        plan = planner.plan(recipe)
        names = [tensors[place].name for place in places if tensors[place].name in oracle]
        if kind < 0.7:
            format = dice.choice([None, "Q4_K", "Q6_K", "Q8_0", "F16"])
            method = dice.choice([None, None, *METHODS])
            recipe = set_choice(recipe, planner, plan, places, format=format, method=method)
            for name in names:
                had_method, had_format, pinned = oracle[name]
                if not pinned:
                    oracle[name] = (method or had_method, format or had_format, False)
        else:
            recipe = set_pinned(recipe, planner, plan, places, pinned := kind < 0.85)
            oracle |= {name: (*oracle[name][:2], pinned) for name in names}
        assert choices(recipe, tensors) == oracle
        assert choices(parse_recipe(recipe.to_json(), "written"), tensors) == oracle
        reused = planner.plan(recipe)
        assert reused == make_plan(recipe, tensors)


@pytest.mark.parametrize("model", MODELS)
def test_rules_do_not_pile_up(model):
    """However long one edits: at most a rule for each tensor and what was there."""
    tensors, dice = MODELS[model], random.Random(model)
    planner, recipe = Planner(tensors), HAND_MADE
    for _ in range(150):
        plan = planner.plan(recipe)
        format = dice.choice(["Q4_K", "Q6_K", "Q8_0"])
        recipe = set_choice(recipe, planner, plan, gesture(tensors, dice), format=format)
    assert len(recipe.rules) <= len(HAND_MADE.rules) + len(tensors)


def edited(recipe, tensors, wanted, **choice):
    planner = Planner(tensors)
    places = [place for place, tensor in enumerate(tensors) if wanted(tensor)]
    return set_choice(recipe, planner, planner.plan(recipe), places, **choice)


def short(recipe):
    """The rules as (match, blocks, format)."""
    return [(rule.match, rule.blocks, rule.format) for rule in recipe.rules]


PLAIN = Recipe(default=Choice(format="Q4_K"))


def test_all_of_a_role_is_one_rule():
    recipe = edited(PLAIN, dense(4), lambda tensor: tensor.role == "v", format="Q6_K")
    assert short(recipe) == [("v", None, "Q6_K")]


def test_a_role_in_some_blocks_is_one_rule():
    recipe = edited(PLAIN, dense(6), lambda t: t.role == "v" and t.block in (0, 1, 4), format="Q6_K")
    assert short(recipe) == [("v", "0-1,4", "Q6_K")]


def test_a_block_is_one_rule():
    recipe = edited(PLAIN, dense(6), lambda tensor: tensor.block == 2, format="Q6_K")
    assert short(recipe) == [(".", "2", "Q6_K")]


def test_edits_one_by_one_join_in_one_rule():
    recipe = PLAIN
    for block in (0, 2, 1, 3):
        recipe = edited(recipe, dense(5), lambda t, b=block: t.role == "v" and t.block == b, format="Q6_K")
    assert short(recipe) == [("v", "0-3", "Q6_K")]
    recipe = edited(recipe, dense(5), lambda t: t.role == "v" and t.block == 4, format="Q6_K")
    assert short(recipe) == [("v", None, "Q6_K")]


def test_going_back_leaves_no_rule_behind():
    recipe = edited(PLAIN, dense(5), lambda tensor: tensor.role == "v", format="Q6_K")
    recipe = edited(recipe, dense(5), lambda tensor: tensor.role == "v", format="Q4_K")
    assert recipe == PLAIN


def test_everything_is_the_default():
    start = preset_recipe("Q4_K_M", ModelFacts("llama", 6), dense(6))
    recipe = edited(start, dense(6), lambda tensor: True, format="Q8_0")
    assert recipe == Recipe(default=Choice(format="Q8_0"))


def test_one_of_several_is_named_by_its_source_or_by_its_own_name():
    tensors = mixture(2)
    recipe = edited(PLAIN, tensors, lambda tensor: tensor.name == "blk.1.ffn_up_exps.weight", format="Q6_K")
    assert short(recipe) == [(r"^blk\.1\.ffn_up_exps\.weight$", None, "Q6_K")]
    recipe = edited(PLAIN, MODELS["no block"], lambda tensor: tensor.name == "w3", format="Q6_K")
    assert short(recipe) == [("^s3$", None, "Q6_K")]


def test_rules_that_matched_nothing_stay_and_those_that_became_idle_go():
    rules = [Rule(match="nothing", format="Q6_K"), Rule(match=r"attn_v\.", blocks="0-1", format="Q6_K")]
    recipe = edited(
        Recipe(rules=rules, default=Choice(format="Q4_K")), dense(4), lambda t: t.role == "v", format="Q5_K"
    )
    assert short(recipe) == [("nothing", None, "Q6_K"), ("v", None, "Q5_K")]


def test_a_format_alone_keeps_the_methods():
    start = Recipe(rules=[Rule(match="v", method="rtn", format="Q6_K")], default=Choice(format="Q4_K"))
    recipe = edited(start, dense(2), lambda tensor: tensor.role in ("v", "k"), format="Q8_0")
    assert {(rule.match, rule.method) for rule in recipe.rules} == {("v", "rtn"), ("k", "search")}


def test_nothing_to_change_gives_the_same_recipe():
    tensors = dense(2)
    assert edited(PLAIN, tensors, lambda tensor: tensor.role == "v", format="Q4_K") is PLAIN
    assert edited(PLAIN, tensors, lambda tensor: tensor.role == "norm", format="Q8_0") is PLAIN


def test_pins_stay_last_and_are_split():
    tensors = dense(4)
    planner = Planner(tensors)
    values = [place for place, tensor in enumerate(tensors) if tensor.role == "v"]
    pinned = set_pinned(PLAIN, planner, planner.plan(PLAIN), values, True)
    assert [(rule.match, rule.blocks, rule.pinned) for rule in pinned.rules] == [("v", None, True)]
    recipe = edited(pinned, tensors, lambda tensor: tensor.role in ("v", "k"), format="Q6_K")
    assert short(recipe) == [("k", None, "Q6_K"), ("v", None, "Q4_K")]
    split = set_pinned(recipe, planner, planner.plan(recipe), values[1:2], False)
    assert short(split) == [("k", None, "Q6_K"), ("v", "0,2-3", "Q4_K")]
    assert set_pinned(split, planner, planner.plan(split), values, False).rules == recipe.rules[:1]


def test_a_preset_is_laid_under_the_pins():
    pin = Rule(match="v", format="F16", pinned=True)
    old = Recipe(rules=[Rule(match="k", format="Q8_0"), pin], default=Choice(format="Q4_K"))
    new = preset_recipe("Q4_K_M", ModelFacts("llama", 6), dense(6))
    assert with_pins(new, old).rules == [*new.rules, pin]
    assert with_pins(with_pins(new, old), old) == with_pins(new, old)


@pytest.mark.parametrize("model", MODELS)
def test_outcomes_are_those_of_a_plan(model):
    planner = Planner(MODELS[model])
    plan = planner.plan(PLAIN)
    outcomes_of_hand_made = outcomes(HAND_MADE, planner)
    assert all(one is other for one, other in zip(plan.tensors, planner.plan(PLAIN).tensors, strict=True))
    made = make_plan(HAND_MADE, MODELS[model]).tensors
    assert outcomes_of_hand_made == [outcome(tensor.format, tensor.method) for tensor in made]


def test_where_each_weight_is_rounded_there_is_no_method():
    assert outcome("F16", "search") == ("F16", "")
    assert outcome("Q4_K", "search") == ("Q4_K", "search")


def test_formats_by_falling_bits_with_the_reason():
    offered = formats_for(in_block(0, "ffn_down", Role.DOWN, 64, 172))
    assert [name for name, _ in offered] == sorted(FORMATS, key=lambda name: -FORMATS[name].bits)
    reasons = dict(offered)
    assert reasons["F16"] == ""
    assert reasons["Q8_0"] == "Q8_0 needs rows that 32 divides; 172 columns get F16"
    assert set(dict(formats_for(in_block(0, "attn_norm", Role.NORM, 64))).values()) == {
        "kept in F32: one-dimensional"
    }


@pytest.mark.parametrize(
    ("bits", "columns", "format"),
    [
        (8, 64, "Q8_0"),
        (6, 256, "Q6_K"),
        (6, 64, "Q6_K"),
        (5, 256, "Q5_K"),
        (5, 32, "Q5_0"),
        (4, 512, "Q4_K"),
        (4, 64, "Q4_0"),
        (4, 33, "Q4_0"),
        (3, 256, "Q3_K"),
        (2, 256, "Q2_K"),
        (2, 32, "Q2_K"),
    ],
)
def test_formats_for_bits(bits, columns, format):
    assert format_for_bits(bits, columns) == format


@pytest.mark.parametrize("bits", [1, 7, 9])
def test_no_format_has_so_many_bits(bits):
    assert format_for_bits(bits, 256) is None


def test_what_is_written_by_an_edit_is_valid_and_equal_when_read_again():
    recipe = edited(PLAIN, odd(), lambda tensor: tensor.name in ("t3", "t4", "t7"), format="Q6_K")
    assert parse_recipe(json.dumps(json.loads(recipe.to_json())), "again") == recipe
