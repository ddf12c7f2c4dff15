"""Recipes for checkpoints: what presets must know, what the command line sets on top."""

import json
import os

import pytest
from gguf import LlamaFileType

from engine.api.errors import RecipeError
from engine.api.presets import ModelFacts
from engine.checkpoint import open_checkpoint
from engine.checkpoint.files import SourceFile
from engine.checkpoint.gguf import read_header
from engine.preparation import prepare
from engine.recipes import model_facts, recipe_for_preset, with_tensor_types
from tests.tiny import llama_config, write_llama

SPELLINGS = {
    "today's": ({"num_attention_heads": 8, "num_key_value_heads": 2}, 4),
    "GPT-2's": ({"n_head": 4}, 1),
    "Falcon 40B's": ({"n_head": 8, "n_head_kv": 2, "multi_query": True, "new_decoder_architecture": True}, 4),
    "Falcon 7B's": ({"num_attention_heads": 4, "num_kv_heads": 4, "multi_query": True}, 4),
    "nonsense": ({"num_attention_heads": 4, "num_key_value_heads": "two"}, 1),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("model"))


def test_facts_of_a_folder_and_of_its_file(model, tmp_path):
    from engine.api.jobs import QuantizeRequest
    from engine.quantize import quantize

    with open_checkpoint(model) as checkpoint:
        facts = model_facts(checkpoint)
        recipe = recipe_for_preset(checkpoint, "F16")
    assert facts == ModelFacts("llama", 2, columns=64, group=2)
    output = tmp_path / "o.gguf"
    quantize(QuantizeRequest(model=str(model), output=str(output), recipe=recipe))
    with open_checkpoint(output) as checkpoint:
        assert model_facts(checkpoint) == facts


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_group_in_every_spelling(model, tmp_path, spelling):
    stated, group = SPELLINGS[spelling]
    for file in model.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"} | stated))
    with open_checkpoint(tmp_path) as checkpoint:
        assert model_facts(checkpoint).group == group


@pytest.mark.parametrize(
    ("preset", "rules", "file_type"),
    [
        ("Q4_K_S", [], "MOSTLY_Q4_K_S"),
        ("IQ3_XS", [], "MOSTLY_IQ3_XS"),
        ("F32", [], "ALL_F32"),
        ("Q8_0", ["ffn_down=Q6_K"], "MOSTLY_Q8_0"),
    ],
)
def test_the_file_says_which_preset_it_is(tmp_path, preset, rules, file_type):
    model = write_llama(
        tmp_path / "m", config=llama_config(hidden_size=256, intermediate_size=256, head_dim=64)
    )
    with open_checkpoint(model) as checkpoint:
        recipe = with_tensor_types(recipe_for_preset(checkpoint, preset), rules)
        prepared = prepare(checkpoint, recipe)
    (tmp_path / "header").write_bytes(prepared.header)
    os.truncate(tmp_path / "header", prepared.size)
    metadata, _ = read_header(SourceFile(tmp_path / "header"))
    assert metadata["general.file_type"].value == LlamaFileType[file_type]


def test_types_by_role_and_by_pattern_the_last_match_wins(model):
    with open_checkpoint(model) as checkpoint:
        asked = ["down=q5_0", r"blk\.1\.ffn_down=Q8_0"]
        plan = prepare(checkpoint, with_tensor_types(recipe_for_preset(checkpoint, "Q4_0"), asked)).plan
    formats = {tensor.name: tensor.format for tensor in plan.tensors}
    assert formats["blk.0.ffn_down.weight"] == "Q5_0"
    assert formats["blk.1.ffn_down.weight"] == "Q8_0"
    assert formats["blk.1.ffn_up.weight"] == "Q4_0"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("ffn_down", "write PATTERN=FORMAT"),
        ("=Q8_0", "write PATTERN=FORMAT"),
        ("ffn_down=Q8_1", "unknown format 'Q8_1'; did you mean Q8_0?"),
        ("(=Q8_0", "no regular expression"),
    ],
)
def test_types_that_cannot_be(model, asked, said):
    with open_checkpoint(model) as checkpoint, pytest.raises(RecipeError) as refusal:
        with_tensor_types(recipe_for_preset(checkpoint, "Q4_0"), [asked])
    assert said in str(refusal.value)


def test_a_pattern_that_matches_nothing_is_said(model):
    with open_checkpoint(model) as checkpoint:
        recipe = with_tensor_types(recipe_for_preset(checkpoint, "Q4_0"), ["ffn_dwon=Q8_0"])
        warnings = prepare(checkpoint, recipe).plan.warnings
    assert any("'ffn_dwon') matches no tensor" in warning for warning in warnings)
