"""Families of architectures: both spellings, what cannot be computed is refused, nothing stored is lost."""

import json
import shutil
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.api.model import Role
from engine.architectures import ARCHITECTURES, UnknownArchitectureError, architecture_of, transformers_view
from engine.architectures.config import UnusableMetadataError
from engine.architectures.rope import RopeScalingError
from engine.checkpoint import open_checkpoint
from engine.checkpoint.errors import MissingTensorError, UnknownTensorError
from engine.export.gguf import Export, OutputTensor, plan_export
from engine.export.gguf import tensor as tensor_module
from engine.export.gguf.plan import HyperParameterError, UnsupportedModelError
from tests.engine.export.families import FACTORS, FAMILIES, made, write_family
from tests.engine.export.models import LLAMA3, export_gguf, write_model

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LONGROPE = FACTORS | {"rope_type": "longrope", "original_max_position_embeddings": 64}


def plan(folder: Path) -> Export:
    with open_checkpoint(folder) as checkpoint:
        return plan_export(checkpoint)


def rewrite(folder: Path, **changes: object) -> Path:
    """Other settings beside the same weights."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_spelling_of_transformers_5_means_the_same(model_type: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path / "model", model_type)
    older = plan(folder)
    config = made(json.loads((folder / "config.json").read_text())).to_dict()
    assert "rope_parameters" in config or model_type == "gpt2"
    (folder / "config.json").write_text(json.dumps(config))
    newer = plan(folder)
    assert newer.metadata == older.metadata
    assert [tensor.sources for tensor in newer.tensors] == [tensor.sources for tensor in older.tensors]


REFUSED = [
    ("gemma2", {"query_pre_attn_scalar": 32}, "query_pre_attn_scalar is 32, .* by 16"),
    ("gemma2", {"final_logit_softcapping": None}, "final_logit_softcapping is not set"),
    ("gemma2", {"layer_types": ["full_attention"] * 3}, "layer_types does not alternate"),
    ("gemma2", {"tie_word_embeddings": False}, "tie_word_embeddings is false"),
    ("gemma2", {"hidden_activation": "silu"}, 'hidden_activation is "silu"'),
    ("gemma2", {"rope_scaling": LLAMA3}, r'"llama3" cannot be written .* linear, dynamic and yarn can'),
    ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping is set"),
    ("gemma3_text", {"rope_scaling": YARN}, "scales the rotary positions of the layers without a sliding"),
    ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention is true"),
    ("gemma3_text", {"attention_bias": True}, "attention_bias is true"),
    ("phi3", {"hidden_act": "gelu"}, 'hidden_act is "gelu"'),
    ("phi3", {"rope_scaling": LONGROPE | {"long_factor": [0.0] * 8}}, "long_factor .* list of 8 positive"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is not false"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is not true"),
    ("gpt2", {"activation_function": "relu"}, 'activation_function is "relu"'),
    ("gpt2", {"n_head": 5}, "num_attention_heads is 5, which does not divide the 64 values"),
    ("gpt_neox", {"attention_bias": False}, "attention_bias is false"),
    ("gpt_neox", {"rotary_pct": "a"}, "partial_rotary_factor is 'a', where a number above 0"),
    ("gpt_neox", {"rotary_pct": 0.01}, r"partial_rotary_factor is 0\.01, which rotates 0 of the 16"),
    ("gpt_neox", {"rotary_pct": 0.2}, r"partial_rotary_factor is 0\.2, which rotates 3 of the 16"),
    ("stablelm", {"hidden_act": "gelu"}, 'hidden_act is "gelu"'),
    ("stablelm", {"rope_scaling": YARN | {"beta_fast": 2.0}}, '"yarn" with a ramp of its own cannot'),
    ("falcon", {"alibi": True}, "alibi is true"),
    ("falcon", {"bias": True}, "bias is true"),
    ("falcon", {"parallel_attn": False}, "parallel_attn is false"),
    ("falcon", {"multi_query": False, "num_kv_heads": 3}, "num_kv_heads is 3, which does not divide the 4"),
    ("falcon", {"multi_query": False, "num_kv_heads": 0}, "num_kv_heads is 0, where a whole number"),
    ("falcon", {"rope_scaling": LONGROPE}, '"longrope" cannot be written'),
]


@pytest.mark.parametrize(("model_type", "changes", "words"), REFUSED)
def test_what_llama_cpp_cannot_compute_is_refused(
    model_type: str, changes: dict, words: str, tmp_path_factory: pytest.TempPathFactory, stock: dict
) -> None:
    if model_type not in stock:
        stock[model_type] = write_family(tmp_path_factory.mktemp("family") / "model", model_type)
    folder = stock[model_type]
    before = (folder / "config.json").read_text()
    try:
        rewrite(folder, **changes)
        with pytest.raises((UnsupportedModelError, RopeScalingError, HyperParameterError), match=words):
            plan(folder)
    finally:
        (folder / "config.json").write_text(before)


@pytest.fixture(scope="module")
def stock() -> dict[str, Path]:
    """Folders by model type, for tests that read them alone."""
    return {}


def test_the_text_of_a_multimodal_gemma_3(tmp_path: Path) -> None:
    text = write_family(tmp_path / "text", "gemma3_text")
    both = write_family(tmp_path / "both", "gemma3_text")
    config = json.loads((both / "config.json").read_text())
    outer = {"model_type": "gemma3", "text_config": config}
    (both / "config.json").write_text(json.dumps(outer))
    tensors = load_file(both / "model.safetensors")
    tensors = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
    tensors["vision_tower.vision_model.post_layernorm.weight"] = torch.ones(4)
    save_file(tensors, both / "model.safetensors")
    alone, part = plan(text), plan(both)
    assert [tensor.name for tensor in part.tensors] == [tensor.name for tensor in alone.tensors]
    differing = {key for key in alone.metadata if part.metadata[key] != alone.metadata[key]}
    assert differing == {"general.name"}
    assert any("vision_tower" in note for note in part.notes)


def test_tables_that_old_checkpoints_store_are_left_out_and_said(tmp_path: Path) -> None:
    """And biases, whose names are alike, are not."""
    for model_type, names in (
        ("gpt2", ("transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias")),
        ("gpt_neox", ("gpt_neox.layers.0.attention.bias", "gpt_neox.layers.1.attention.rotary_emb.inv_freq")),
    ):
        folder = write_family(tmp_path / model_type, model_type)
        tensors = load_file(folder / "model.safetensors")
        save_file(tensors | {name: torch.ones(2) for name in names}, folder / "model.safetensors")
        export = plan(folder)
        assert any(note.startswith("2 stored tables") for note in export.notes)
        assert {name for tensor in export.tensors for name in tensor.sources} == set(tensors)
        assert "blk.1.attn_qkv.bias" in {tensor.name for tensor in export.tensors}


def test_a_head_that_llama_cpp_asks_for_is_the_embedding_again(tmp_path: Path) -> None:
    export = plan(write_family(tmp_path / "model", "stablelm", tie_word_embeddings=True))
    output = next(tensor for tensor in export.tensors if tensor.name == "output.weight")
    assert output.sources == ("model.embed_tokens.weight",)


def test_an_output_that_llama_cpp_has_no_place_for(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "model", "gemma2")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    assert "output.weight" not in {tensor.name for tensor in plan(folder).tensors}
    tensors["lm_head.weight"] = -tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UnknownTensorError, match=r"lm_head\.weight has no place"):
        plan(folder)


def test_the_window_that_llama_cpp_leaves_out_is_said(tmp_path: Path) -> None:
    export = plan(write_family(tmp_path / "model", "phi3", sliding_window=16))
    assert any("last 16 tokens" in note and "llama.cpp attends to all" in note for note in export.notes)


def test_a_missing_norm_of_a_head_is_refused(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "model", "stablelm", qk_layernorm=True)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.self_attn.k_layernorm.norms.0.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(MissingTensorError, match=r"1 heads for blk\.1\.attn_k_norm\.weight .* 2"):
        plan(folder)


def test_norms_of_heads_stay_norms(tmp_path: Path) -> None:
    export = plan(write_family(tmp_path / "model", "stablelm", qk_layernorm=True))
    norm = next(tensor for tensor in export.tensors if tensor.name == "blk.1.attn_q_norm.weight")
    assert (norm.shape, norm.role, len(norm.sources)) == ((4, 16), Role.NORM, 4)


@pytest.mark.parametrize("model_type", ["gpt2", "stablelm", "falcon", "gemma2"])
@pytest.mark.parametrize("source", ["float32", "float16"])
def test_pieces_make_the_whole(model_type: str, source: str, tmp_path: Path) -> None:
    changes = {"qk_layernorm": True} if model_type == "stablelm" else {}
    folder = write_family(tmp_path / "model", model_type, **changes)
    dtype = getattr(torch, source)
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    with open_checkpoint(folder) as checkpoint:
        for tensor in plan_export(checkpoint).tensors:
            rows = prod(tensor.shape[:-1])
            whole = tensor.read(checkpoint, 0, rows)
            assert whole.shape == (rows, tensor.shape[-1])
            for start in range(0, rows, 35):
                stop = min(start + 7, rows)
                piece = tensor.read(checkpoint, start, stop)
                assert piece.flags.c_contiguous
                assert np.array_equal(piece, whole[start:stop]), tensor.name
                halves = tensor.read(checkpoint, start, stop, halves=True)
                assert (halves.dtype == np.float16) == (source == "float16" and not tensor.plus)
                assert np.array_equal(halves.astype(np.float32), piece), tensor.name


def test_a_piece_of_a_transposed_source_holds_some_of_its_rows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = np.random.default_rng(0).normal(size=(100, 48)).astype(np.float32)
    save_file({"c_fc": torch.from_numpy(weights)}, tmp_path / "model.safetensors")
    monkeypatch.setattr(tensor_module, "BLOCK", 4 * 48 * 30)
    with open_checkpoint(tmp_path / "model.safetensors") as checkpoint:
        tensor = OutputTensor("up", (48, 100), Role.UP, 0, ("c_fc",), transposed=True)
        asked = []
        read = checkpoint.read

        def watched(name: str, rows: slice) -> np.ndarray:
            asked.append(rows)
            return read(name, rows)

        checkpoint.read = watched  # type: ignore[method-assign]
        assert np.array_equal(tensor.read(checkpoint, 5, 17), weights.T[5:17])
        assert asked == [slice(0, 30), slice(30, 60), slice(60, 90), slice(90, 100)]


def test_a_billion_blocks_are_refused_before_transformers_lists_them(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "model", "gemma2")

    def claim(export: Export) -> None:
        number = export.metadata["gemma2.block_count"]
        export.metadata["gemma2.block_count"] = replace(number, value=10**9)

    path = export_gguf(folder, claim)
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 10**9}
    inner = config | {"model_type": "gemma3_text"}
    sources = [path]
    for number, stated in enumerate((config, {"model_type": "gemma3", "text_config": inner})):
        sources.append(tmp_path / f"claims-{number}")
        shutil.copytree(folder, sources[-1])
        (sources[-1] / "config.json").write_text(json.dumps(stated))
    for source in sources:
        with (
            open_checkpoint(source) as checkpoint,
            pytest.raises(MissingTensorError, match="too few for the 1,000,000,000 blocks"),
        ):
            transformers_view(checkpoint)


def test_heads_of_a_file_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    def odd(export: Export) -> None:
        number = export.metadata["falcon.attention.head_count_kv"]
        export.metadata["falcon.attention.head_count_kv"] = replace(number, value=3)

    path = export_gguf(write_family(tmp_path / "model", "falcon"), odd)
    with (
        open_checkpoint(path) as checkpoint,
        pytest.raises(UnusableMetadataError, match="num_kv_heads is 3, which does not divide the 4 heads"),
    ):
        transformers_view(checkpoint)


FOREIGN = {
    "gemma2": ("attention.sliding_window_pattern", "rope.dimension_count", "rope.freq_base", "vocab_size"),
    "gemma3_text": ("rope.dimension_count", "vocab_size"),
    "gpt2": ("vocab_size",),
    "gpt_neox": ("vocab_size",),
    "falcon": ("vocab_size", "rope.dimension_count", "rope.freq_base"),
}
"""Keys that files of llama.cpp's own converter lack, where the models here have the usual value."""


@pytest.mark.parametrize("model_type", FOREIGN)
def test_files_of_llama_cpps_converter_open_for_evaluation(model_type: str, tmp_path: Path) -> None:
    def leave_out(export: Export) -> None:
        for key in FOREIGN[model_type]:
            del export.metadata[f"{export.architecture}.{key}"]

    folder = write_family(tmp_path / "model", model_type)
    ours, theirs = export_gguf(folder), export_gguf(folder, leave_out, path=tmp_path / "theirs.gguf")
    configs = []
    for path in (ours, theirs):
        with open_checkpoint(path) as checkpoint:
            configs.append(transformers_view(checkpoint).config.to_dict())
    assert configs[0] == configs[1]


def test_every_family_is_found_by_its_name() -> None:
    names = {architecture.name for architecture in ARCHITECTURES}
    assert names >= {*FAMILIES, "llama", "mistral", "mixtral"}


@pytest.mark.parametrize(
    ("model_type", "words"),
    [("gpt_neo", r"the nearest is gpt_neox"), ("martian", "the nearest is mixtral of falcon, .*stablelm")],
)
def test_an_architecture_without_a_table(model_type: str, words: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", model_type=model_type)
    way = words + r".*convert_hf_to_gguf\.py and open that"
    with open_checkpoint(folder) as checkpoint, pytest.raises(UnknownArchitectureError, match=way):
        architecture_of(checkpoint)


def test_longrope_under_its_first_name(tmp_path: Path) -> None:
    """Phi-3 as it was published says "su" where transformers 5 knows "longrope" alone."""
    longrope = FACTORS | {"type": "longrope"}
    sizes = {"original_max_position_embeddings": 64, "max_position_embeddings": 1024}
    folder = write_family(tmp_path / "m", "phi3", rope_scaling=longrope, **sizes)
    config = json.loads((folder / "config.json").read_text())
    with open_checkpoint(folder) as checkpoint:
        expected = plan_export(checkpoint)
    (folder / "config.json").write_text(json.dumps(config | {"rope_scaling": longrope | {"type": "su"}}))
    with open_checkpoint(folder) as checkpoint:
        export = plan_export(checkpoint)
    assert export.metadata == expected.metadata
    assert [tensor.name for tensor in export.tensors] == [tensor.name for tensor in expected.tensors]
