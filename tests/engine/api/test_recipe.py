"""The recipe: round trip, matching, and one sentence for each mistake."""

import json

import pytest

from engine.api.errors import RecipeError
from engine.api.model import Role
from engine.api.plan import ExportTensor, make_plan
from engine.api.recipe import Choice, Recipe, Rule, block_ranges, load_recipe, parse_recipe

WRITTEN = {
    "version": 1,
    "calibration": {"files": ["a.txt"], "windows": 16, "length": 256, "seed": 3},
    "imatrix": "m.gguf",
    "rules": [
        {"match": "down", "blocks": "0-1,3-", "format": "Q6_K"},
        {"match": r"attn_q\.", "method": "rtn", "format": "q5_k"},
    ],
    "default": {"format": "Q4_K"},
    "output": {"container": "gguf"},
}


def test_round_trip():
    recipe = parse_recipe(json.dumps(WRITTEN), "r.json")
    assert parse_recipe(recipe.to_json(), "again") == recipe
    assert recipe.rules[1].format == "Q5_K"
    assert recipe.default.method == "search"


def test_last_match_wins_in_source_and_canonical_names():
    recipe = Recipe(
        rules=[
            Rule(match="o_proj", format="Q8_0"),
            Rule(match=r"attn_output", blocks="2", format="Q5_0"),
            Rule(match="o", blocks="3", format="Q6_K"),
        ],
        default=Choice(format="Q4_0"),
    )
    outputs = [
        ExportTensor(
            name=f"blk.{block}.attn_output.weight",
            shape=(64, 256),
            role=Role.O,
            block=block,
            sources=(f"model.layers.{block}.self_attn.o_proj.weight",),
        )
        for block in (0, 2, 3)
    ]
    other = ExportTensor(
        name="blk.3.attn_q.weight", shape=(64, 256), role=Role.Q, block=3, sources=("q_proj",)
    )
    planned = make_plan(recipe, [*outputs, other]).tensors
    assert [(tensor.format, tensor.rule) for tensor in planned] == [
        ("Q8_0", 0),
        ("Q5_0", 1),
        ("Q6_K", 2),
        ("Q4_0", None),
    ]


def test_role_name_matches_the_role_alone():
    rule = Rule(match="v", format="Q6_K")
    assert rule.matches(("blk.0.attn_v.weight",), Role.V, 0)
    assert not rule.matches(("vision.v.weight",), Role.OTHER, None)


@pytest.mark.parametrize(
    ("blocks", "inside", "outside"),
    [("0-1,3-", [0, 1, 3, 80], [2]), ("7", [7], [6, 8]), ("2-4", [2, 3, 4], [1, 5])],
)
def test_blocks(blocks, inside, outside):
    rule = Rule(match=".", blocks=blocks, format="Q6_K")
    assert all(rule.matches(("x",), Role.Q, block) for block in inside)
    assert not any(rule.matches(("x",), Role.Q, block) for block in [*outside, None])


def test_block_ranges():
    assert block_ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rules": [{"match": "down", "fromat": "Q4_K"}]}, "rule 1 ('down'): "),
        (
            {"rules": [{"match": "down", "format": "Q4_X"}]},
            "rule 1 ('down'): unknown format 'Q4_X'; did you mean",
        ),
        (
            {"rules": [{"match": "a(", "format": "Q4_K"}]},
            "rule 1 ('a('): match 'a(' is no regular expression",
        ),
        ({"rules": [{"match": "a{99999999999999999999}", "format": "Q4_K"}]}, "is no regular expression"),
        ({"rules": [{"match": "(" * 1500, "format": "Q4_K"}]}, "is no regular expression"),
        ({"rules": [{"match": "a" * 5000, "format": "Q4_K"}]}, "5000 letters, where 2000 are allowed"),
        ({"rules": [{"match": "a", "blocks": "9" * 5000, "format": "Q4_K"}]}, "is not a list of blocks"),
        ({"rules": [{"match": "a", "blocks": "3..4", "format": "Q4_K"}]}, "rule 1 ('a'): blocks '3..4'"),
        ({"rules": [{"match": "a", "method": "gtpq", "format": "Q4_K"}]}, "unknown method 'gtpq'"),
        ({"rules": [{"format": "Q4_K"}]}, "rule 1: 'match' is missing"),
        ({"rules": ["a"]}, "rule 1: "),
        ({"default": {"format": "Q9"}}, "default: unknown format 'Q9'"),
        ({"defualt": {"format": "Q4_K"}}, "unknown key 'defualt'; did you mean 'default'?"),
        ({"rules": [{"match": "a", "blocks": "5-2", "format": "Q4_K"}]}, "write '2-5'"),
        (
            {"rules": [{"match": "a", "blocks": 5, "format": "Q4_K"}]},
            "rule 1 ('a'): blocks must be text in quotes.",
        ),
        ({"rules": [{"match": "a", "format": "Q4_K", "params": {"x": 1}}]}, "'search' has no parameter 'x'"),
        ({"default": 3}, "default must be an object"),
        ({"rules": 3}, "rules must be a list in brackets"),
        ({"calibration": {"windows": 0}}, "calibration.windows must be at least 1"),
        ({"calibration": {"seed": 1.5}}, "calibration.seed must be a whole number."),
        ({"output": {"options": {"metadata": {"a.b": None}}}}, "a.b must be text, a number, true, false or"),
        ({"version": 2}, "version must be 1"),
        ({"output": {"container": "zip"}}, "output.container must be 'gguf'"),
        (
            {"output": {"options": {"x": 1}}},
            "output.options: unknown key 'x'; known: split_max_size, metadata, pre_tokenizer",
        ),
        *(
            (
                {"output": {"options": {"split_max_size": size}}},
                "r.json: output.options: split_max_size: a file has at least 1 MB (1,000,000 bytes).",
            )
            for size in (5, -1, 0)
        ),
        ({"output": {"options": {"split_max_size": 1e30}}}, "split_max_size must be a smaller whole number."),
        ({"output": {"options": {"split_max_size": "x"}}}, "split_max_size must be a whole number."),
        ({"calibration": {"windows": 1e30}}, "calibration.windows must be a smaller whole number."),
        (
            {"output": {"options": {"metadata": {"a\nb": None}}}},
            "output.options: 'a\\nb' must be text, a num",
        ),
        ({"output": {"options": {"pre_tokenizer": 1}}}, "output.options: pre_tokenizer must be text"),
    ],
)
def test_mistakes_are_named(change, said):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(json.dumps({"default": {"format": "Q4_K"}} | change), "r.json")
    assert str(caught.value).startswith("r.json: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_recipe(tmp_path):
    path = tmp_path / "r.json"
    bad = {
        b"{": "not valid JSON",
        b"[]": "JSON object",
        b"\xff\xfe": "UTF-8",
        b" ": "is empty",
        b"[" * 200_000: "nested too deeply",
        b"1" * 5000: "too long",
        b"{}": "'default' is missing",
    }
    for content, said in bad.items():
        path.write_bytes(content)
        with pytest.raises(RecipeError, match=said):
            load_recipe(path)
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "absent.json")


def test_an_importance_matrix_is_looked_for_beside_the_recipe(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"imatrix": "im.gguf", "default": {"format": "Q4_K"}}))
    assert load_recipe(path).imatrix == str(tmp_path / "im.gguf")
