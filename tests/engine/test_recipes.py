"""Recipes for checkpoints: what presets must know, what the command line sets on top."""

import json
import os
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import LlamaFileType
from safetensors.torch import load_file, save_file

from engine.api.errors import ExportError, RecipeError
from engine.api.jobs import QuantizeRequest, QuantizeResult
from engine.api.mixtures import stored_recipe
from engine.api.plan import ExportTensor, Planner, make_plan
from engine.api.presets import ModelFacts
from engine.api.recipe import Recipe
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.checkpoint.files import SourceFile
from engine.checkpoint.gguf import read_header
from engine.checks import check
from engine.export.gguf import export_tensors
from engine.preparation import prepare
from engine.quantize import quantize
from engine.recipes import (
    model_facts,
    recipe_for_preset,
    with_importance,
    with_metadata,
    with_options,
    with_tensor_types,
)
from engine.summary import export_summary
from resources import SAMPLE_MODEL
from tests.engine.export.families import write_family
from tests.engine.export.random_models import write_random
from tests.tiny import llama_config, write_llama


def test_a_tied_model_whose_file_holds_the_embedding_twice(tmp_path):
    """OLMo 2 and others: llama.cpp wants an output of its own, which then is no embedding for a preset."""
    folder = write_random(tmp_path / "m", "olmo2", hidden_size=256, tie_word_embeddings=True)
    with open_checkpoint(folder) as checkpoint:
        assert not facts_of(checkpoint).tied
        plan = prepare(checkpoint, recipe_for_preset(checkpoint, "Q4_K_M")).plan
    formats = {tensor.name: (tensor.role, tensor.format) for tensor in plan.tensors}
    assert formats["token_embd.weight"] == ("embedding", "Q4_K")
    assert formats["output.weight"] == ("output", "Q6_K")


SPELLINGS = {
    "today's": ({"num_attention_heads": 8, "num_key_value_heads": 2}, 4),
    "GPT-2's": ({"n_head": 4}, 1),
    "Falcon 40B's": ({"n_head": 8, "n_head_kv": 2, "multi_query": True, "new_decoder_architecture": True}, 4),
    "Falcon 7B's": ({"num_attention_heads": 4, "num_kv_heads": 4, "multi_query": True}, 4),
    "nonsense": ({"num_attention_heads": 4, "num_key_value_heads": "two"}, 1),
}


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def facts_of(checkpoint: Checkpoint) -> ModelFacts:
    return model_facts(checkpoint, export_tensors(checkpoint))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("model"))


def test_facts_of_a_folder_and_of_its_file(model, tmp_path):
    with open_checkpoint(model) as checkpoint:
        facts = facts_of(checkpoint)
        recipe = recipe_for_preset(checkpoint, "F16")
    assert facts == ModelFacts("llama", 2, group=2)
    output = tmp_path / "o.gguf"
    quantize(QuantizeRequest(model=str(model), output=str(output), recipe=recipe))
    with open_checkpoint(output) as checkpoint:
        assert facts_of(checkpoint) == facts


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_group_in_every_spelling(model, tmp_path, spelling):
    stated, group = SPELLINGS[spelling]
    for file in model.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"} | stated))
    with open_checkpoint(tmp_path) as checkpoint:
        assert model_facts(checkpoint, []).group == group


@pytest.mark.parametrize(
    ("preset", "rules", "file_type"),
    [
        ("Q4_K_S", [], "MOSTLY_Q4_K_S"),
        ("IQ3_XS", [], "MOSTLY_IQ3_XS"),
        ("F32", [], "ALL_F32"),
        ("Q8_0", ["ffn_down=Q6_K"], "MOSTLY_Q8_0"),
        ("Q3_K_L", ["attn_q=Q4_K"], "MOSTLY_Q3_K_L"),
        ("IQ2_M", ["attn_q=Q4_K"], "MOSTLY_IQ2_M"),
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
    assert any("--tensor-type 'ffn_dwon' matches no tensor" in warning for warning in warnings)


def made(model: Path, output: Path, preset: str) -> QuantizeResult:
    with open_checkpoint(model) as checkpoint:
        recipe = recipe_for_preset(checkpoint, preset)
    return quantize(QuantizeRequest(model=str(model), output=str(output), recipe=recipe))


def test_copy_keeps_every_byte(tmp_path):
    config = llama_config(hidden_size=256, intermediate_size=256, head_dim=64)
    made(write_llama(tmp_path / "m", config=config), tmp_path / "q.gguf", "Q4_K_M")
    result = made(tmp_path / "q.gguf", tmp_path / "copy.gguf", "copy")
    assert (tmp_path / "copy.gguf").read_bytes() == (tmp_path / "q.gguf").read_bytes()
    assert result.warnings == []


def test_what_has_its_type_already_is_not_quantized_again(tmp_path):
    config = llama_config(hidden_size=256, intermediate_size=256, head_dim=64)
    made(write_llama(tmp_path / "m", config=config), tmp_path / "q.gguf", "Q4_K_M")
    result = made(tmp_path / "q.gguf", tmp_path / "again.gguf", "Q6_K")
    before, after = (
        {t.name: (t.tensor_type.name, t.data.tobytes()) for t in gguf.GGUFReader(tmp_path / name).tensors}
        for name in ("q.gguf", "again.gguf")
    )
    kept = {name for name, (kind, _) in before.items() if kind == "Q6_K"}
    assert kept
    assert all(after[name] == before[name] for name in kept)
    assert {kind for kind, _ in after.values()} == {"F32", "Q6_K"}
    assert any("quantized in the source already (Q4_K)" in warning for warning in result.warnings)


def test_copy_keeps_the_type_that_the_file_states(tmp_path):
    config = llama_config(hidden_size=256, intermediate_size=256, head_dim=64)
    made(write_llama(tmp_path / "m", config=config), tmp_path / "q.gguf", "Q4_K_S")
    stated = made(tmp_path / "q.gguf", tmp_path / "copy.gguf", "copy").output
    metadata, _ = read_header(SourceFile(Path(stated)))
    assert metadata["general.file_type"].value == LlamaFileType.MOSTLY_Q4_K_S


def test_an_output_that_config_json_does_not_call_tied(tmp_path):
    """Falcon as published: the head is stored again, and the default of its config ties it."""
    folder = write_family(tmp_path / "m", "falcon", hidden_size=256, num_attention_heads=4)
    config = json.loads((folder / "config.json").read_text())
    config.pop("tie_word_embeddings", None)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.word_embeddings.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    with open_checkpoint(folder) as checkpoint:
        assert facts_of(checkpoint).tied
        plan = prepare(checkpoint, recipe_for_preset(checkpoint, "Q4_K_M")).plan
    formats = {tensor.name: tensor.format for tensor in plan.tensors}
    assert formats["token_embd.weight"] == "Q8_0"
    assert not any("matches no tensor" in warning for warning in plan.warnings)


def test_the_name_of_a_model_in_the_cache_of_hugging_face(model, tmp_path):
    folder = tmp_path / "models--meta--Llama-3.2-1B" / "snapshots" / "0123abcd"
    shutil.copytree(model, folder)
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.title == "Llama-3.2-1B"


def test_coarse_formats_without_an_importance_matrix_are_said(tmp_path):
    config = llama_config(hidden_size=256, intermediate_size=256, head_dim=64)
    with open_checkpoint(write_llama(tmp_path / "m", config=config)) as checkpoint:
        warnings = prepare(checkpoint, recipe_for_preset(checkpoint, "IQ2_XXS")).plan.warnings
        assert any("IQ2_XXS without an importance matrix" in warning for warning in warnings)
        assert prepare(checkpoint, recipe_for_preset(checkpoint, "Q3_K_M")).plan.warnings == []


def test_facts_of_a_file_are_those_that_it_states(tmp_path):
    """A block may have no tensor at all, and old mixtures hold each expert apart."""
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "llama")
    writer.add_block_count(3)
    writer.add_expert_count(8)
    for block in (0, 2):
        writer.add_tensor(f"blk.{block}.ffn_up.1.weight", np.zeros((2, 32), np.float16))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    with open_checkpoint(tmp_path / "v.gguf") as checkpoint:
        assert facts_of(checkpoint) == ModelFacts("llama", 3, experts=8, tied=True)


def test_what_llama_quantize_leaves_alone_stays_as_it_is(tmp_path):
    """By its name; or a matrix of one row, for llama.cpp counts no last dimension of 1: a vector."""
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "llama")
    for name, rows in {
        "blk.0.ffn_up.weight": 2,
        "cls.output.weight": 1,
        "blk.0.shortconv.conv.weight": 2,
        "blk.0.ffn_gate_tid2eid.weight": 2,
    }.items():
        writer.add_tensor(name, np.zeros((rows, 256), np.float16))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    with open_checkpoint(tmp_path / "v.gguf") as checkpoint:
        tensors = export_tensors(checkpoint)
        recipe = recipe_for_preset(checkpoint, "Q4_K_S")
    plan = make_plan(recipe, tensors)
    assert [tensor.format for tensor in plan.tensors] == ["Q4_K", "F16", "F16", "F16"]


def test_a_file_without_tensors(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "v.gguf", "llama")
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    with open_checkpoint(tmp_path / "v.gguf") as checkpoint, pytest.raises(ExportError, match="no tensors"):
        recipe_for_preset(checkpoint, "COPY")


def test_copy_of_a_folder_keeps_its_types(model, tmp_path):
    made(model, tmp_path / "copy.gguf", "COPY")
    types = {t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "copy.gguf").tensors}
    assert types == {"F32"}


def test_copy_of_a_type_that_gguf_has_not_is_refused():
    planner = Planner([ExportTensor(
        name="blk.0.ffn_up.weight", shape=(32, 32), role="up", block=0, sources=("x",), stored="F8_E4M3"
    )])  # fmt: skip
    with pytest.raises(RecipeError, match=r"ffn_up\.weight is stored as F8_E4M3"):
        planner.recipe_of("COPY", ModelFacts("llama", 1))


def test_copy_needs_few_rules():
    kinds = {"attn_q": ["Q4_K"] * 3, "attn_v": ["Q6_K", "Q4_K", "Q6_K"], "ffn_down": ["Q6_K"] * 3}
    tensors = [
        (f"blk.{block}.{kind}.weight", block, form)
        for kind, forms in kinds.items()
        for block, form in enumerate(forms)
    ]
    recipe = stored_recipe([*tensors, ("output.weight", None, "Q4_K")])
    assert [(rule.match, rule.blocks) for rule in recipe.rules if rule.format == "Q6_K"] == [
        (r"^blk\.\d+\.attn_v\.weight$", "0,2"),
        (r"^blk\.\d+\.ffn_down\.weight$", None),
    ]


def test_metadata_from_the_command_line(model, tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages }}\n")
    asked = ["general.author=A=B", f"tokenizer.chat_template=@{template}", "general.name="]
    with open_checkpoint(model) as checkpoint:
        recipe = with_metadata(recipe_for_preset(checkpoint, "F16"), asked)
        prepared = prepare(checkpoint, Recipe.model_validate_json(recipe.to_json()))
    metadata = prepared.export.metadata
    assert metadata["general.author"].value == "A=B"
    assert metadata["tokenizer.chat_template"].value == "{{ messages }}\n"
    assert "general.name" not in metadata


def test_a_size_of_files_that_is_too_small(model):
    with open_checkpoint(model) as checkpoint, pytest.raises(RecipeError) as refusal:
        with_options(recipe_for_preset(checkpoint, "F16"), split_max_size=5)
    assert str(refusal.value) == "--split-max-size: a file has at least 1 MB (1,000,000 bytes)."


def test_edits_that_runtimes_may_not_stand_are_said(model):
    asked = ["llama.context_length=1", "general.nosuch=", "author=Me"]
    with open_checkpoint(model) as checkpoint:
        recipe = with_metadata(recipe_for_preset(checkpoint, "F16"), asked)
        warnings = prepare(checkpoint, recipe).plan.warnings
    assert warnings == [
        "metadata: runtimes go by llama.context_length; a file with another value may not load, or not work",
        "metadata: there is no general.nosuch to leave out",
    ]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("general.author", "write KEY=VALUE"),
        ("general.author=@/absent", "/absent cannot be read: No such file"),
        ("general.architecture=x", "general.architecture cannot be edited: it says how all others are read"),
        ("split.no=1", "follows from the size of the files"),
        ("a b=1", "is no key"),
    ],
)
def test_metadata_that_cannot_be(model, asked, said):
    with open_checkpoint(model) as checkpoint, pytest.raises(RecipeError) as refusal:
        with_metadata(recipe_for_preset(checkpoint, "F16"), [asked])
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("llama.block_count=1", "llama.block_count cannot be 1: the file holds 2 blocks"),
        ("llama.block_count=", "llama.block_count cannot be left out"),
        ("llama.embedding_length=128", "cannot be 128: the file holds 64 values in a row of its embedding"),
        ("llama.vocab_size=511", "cannot be 511: the file holds 512 tokens"),
        ("tokenizer.ggml.bos_token_id=512", "cannot be 512: the vocabulary has 512 tokens, 0 to 511"),
    ],
)
def test_edits_against_the_file_are_refused(model, asked, said):
    with open_checkpoint(model) as checkpoint:
        recipe = with_metadata(recipe_for_preset(checkpoint, "F16"), [asked])
        with pytest.raises(RecipeError) as refusal:
            prepare(checkpoint, recipe)
    assert said in str(refusal.value)


def write_gguf(path: Path, texts: dict[str, str]) -> Path:
    """A file without a vocabulary that has these keys."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, text in texts.items():
        writer.add_string(key, text)
    writer.add_tensor("blk.0.ffn_up.weight", np.zeros((32, 32), np.float16))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    return path


def test_keys_without_a_dot_that_the_file_has_can_be_edited(model, tmp_path):
    """Those of the window's sheet, too, in a recipe that was saved and loaded."""
    file = write_gguf(tmp_path / "m.gguf", {"mykey": "a", "author": "b", "general.author": "c"})
    with open_checkpoint(file) as checkpoint:
        plain = recipe_for_preset(checkpoint, "Q8_0")
        asked = ["mykey=z", "author=y", "general.author=x"]
        typed = with_metadata(plain, asked, checkpoint.metadata)
        clicked = plain.with_options(metadata={"mykey": "z", "author": "y"})
        found = [
            prepare(checkpoint, Recipe.model_validate_json(recipe.to_json())).export.metadata
            for recipe in (typed, clicked)
        ]
    assert [[one[key].value for key in ("mykey", "author", "general.author")] for one in found] == [
        ["z", "y", "x"],
        ["z", "y", "c"],
    ]
    with open_checkpoint(model) as checkpoint, pytest.raises(RecipeError) as refusal:
        prepare(checkpoint, clicked)  # a file that has no such key
    assert str(refusal.value) == (
        "metadata: mykey is no key that programs know; write it in full (such as general.author)."
    )


def test_numbers_that_only_the_type_of_a_file_s_key_can_hold():
    recipe = Recipe.model_validate({"default": {"format": "Q8_0"}})
    recipe = recipe.with_options(metadata={"x.large": 1 << 40})
    assert Recipe.model_validate_json(recipe.to_json()) == recipe


def test_a_broken_template_is_refused_before_the_work(model, tmp_path):
    with open_checkpoint(model) as checkpoint:
        recipe = with_metadata(recipe_for_preset(checkpoint, "F16"), ["chat_template={% if x %}\n{{ x }"])
        with pytest.raises(RecipeError) as refusal:
            prepare(checkpoint, recipe)
    said = "metadata: tokenizer.chat_template is no chat template that programs can read: line 2: "
    assert str(refusal.value).startswith(said)
    request = QuantizeRequest(model=str(model), output=str(tmp_path / "o.gguf"), recipe=recipe)
    (failed,) = [one for one in check(request) if one.passed is False]
    assert (failed.name, failed.message) == ("recipe", str(refusal.value))


def test_a_broken_template_of_the_source_is_kept_and_said(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "m")
    (folder / "chat_template.jinja").write_text("{% if x %}\n{{ x }")
    with open_checkpoint(folder) as checkpoint:
        recipe = recipe_for_preset(checkpoint, "F16")
        prepared = prepare(checkpoint, recipe)
        mended = prepare(checkpoint, with_metadata(recipe, ["chat_template={{ x }}"]))
    assert prepared.export.metadata["tokenizer.chat_template"].value == "{% if x %}\n{{ x }"
    (said,) = [one for one in prepared.plan.warnings if "chat template" in one]
    assert "line 2: " in said
    assert not [one for one in mended.plan.warnings if "chat template" in one]


def test_the_window_knows_the_size_of_what_is_edited_and_split(tmp_path):
    edits = {"general.name": "é" * 99, "general.size_label": "", "general.tags": ["a", "b"]}
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        export = export_summary(checkpoint)
        for most in (None, 3_000_000, 9_000_000):
            recipe = with_options(
                recipe_for_preset(checkpoint, "Q4_K_M"), metadata=edits, split_max_size=most
            )
            prepared = prepare(checkpoint, with_importance(recipe, SAMPLE_MODEL / "imatrix.gguf"))
            assert "quantize.imatrix.file" in prepared.export.metadata
            assert (len(prepared.parts) == 1) is (most is None)
            assert export.file_bytes(prepared.plan, recipe.output.options) == prepared.size


def test_the_window_knows_the_pre_tokenizers_and_the_size_of_one_that_is_named(tmp_path):
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        export = export_summary(checkpoint)
        assert {"gpt-2", "llama-bpe", "qwen2"} < set(export.pre_tokenizers)
        sizes = set()
        for letters in range(0, 40, 8):  # of which one or the other makes the header longer by a step
            recipe = recipe_for_preset(checkpoint, "Q8_0").with_options(
                metadata={"general.name": "x" * (letters + 1)}, pre_tokenizer="granite-docling"
            )
            prepared = prepare(checkpoint, recipe)
            assert export.file_bytes(prepared.plan, recipe.output.options) == prepared.size
            unnamed = recipe.output.options.model_copy(update={"pre_tokenizer": None})
            sizes.add(prepared.size - export.file_bytes(prepared.plan, unnamed))
        assert sizes == {0, export.alignment}
