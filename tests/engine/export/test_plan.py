"""What a checkpoint becomes: every tensor in its place or refused by name, metadata that llama.cpp wants."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFValueType
from safetensors.torch import load_file, save_file

from engine.api.errors import TokenizerError, UserError
from engine.api.gguf import GgufValue
from engine.api.model import Role
from engine.api.plan import make_plan
from engine.api.recipe import Choice, Recipe
from engine.architectures import UnknownArchitectureError
from engine.architectures.config import UnusableConfigError
from engine.architectures.rope import RopeScalingError
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.checkpoint.errors import MissingTensorError, TensorShapeError, UnknownTensorError
from engine.export.gguf import Export, plan_export
from engine.export.gguf.plan import HyperParameterError, UnsupportedModelError
from tests.engine.export.models import LLAMA3, export_gguf, mistral, mixtral, write_model

Tensors = dict[str, torch.Tensor]


def plan(path: Path) -> Export:
    with open_checkpoint(path) as checkpoint:
        return plan_export(checkpoint)


def with_tensors(folder: Path, change: Callable[[Tensors], None]) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_metadata_of_a_llama(tmp_path: Path) -> None:
    export = plan(write_model(tmp_path / "harbour", head_dim=32, rms_norm_eps=1e-6))
    values = {key: (value.type.name, value.value) for key, value in export.metadata.items()}
    assert {key: value for key, value in values.items() if not key.startswith("tokenizer.")} == {
        "general.architecture": ("STRING", "llama"),
        "general.type": ("STRING", "model"),
        "general.name": ("STRING", "harbour"),
        "general.size_label": ("STRING", "176K"),
        "llama.vocab_size": ("UINT32", 512),
        "llama.context_length": ("UINT32", 256),
        "llama.embedding_length": ("UINT32", 64),
        "llama.block_count": ("UINT32", 2),
        "llama.feed_forward_length": ("UINT32", 160),
        "llama.attention.head_count": ("UINT32", 4),
        "llama.attention.head_count_kv": ("UINT32", 2),
        "llama.attention.key_length": ("UINT32", 32),
        "llama.attention.value_length": ("UINT32", 32),
        "llama.rope.dimension_count": ("UINT32", 32),
        "llama.attention.layer_norm_rms_epsilon": ("FLOAT32", 1e-6),
        "llama.rope.freq_base": ("FLOAT32", 10000.0),
    }
    assert len(values["tokenizer.ggml.tokens"][1]) == 512


def test_tensors_of_a_llama(tmp_path: Path) -> None:
    export = plan(write_model(tmp_path / "model"))
    assert [tensor.name for tensor in export.tensors[:5]] == [
        "token_embd.weight",
        "output_norm.weight",
        "output.weight",
        "blk.0.attn_norm.weight",
        "blk.0.attn_q.weight",
    ]
    down = next(tensor for tensor in export.tensors if tensor.name == "blk.1.ffn_down.weight")
    assert (down.shape, down.role, down.block) == ((64, 160), Role.DOWN, 1)
    assert down.sources == ("model.layers.1.mlp.down_proj.weight",)
    assert not export.notes


def test_experts_are_stacked(tmp_path: Path) -> None:
    export = plan(write_model(tmp_path / "model", **mixtral()))
    up = next(tensor for tensor in export.tensors if tensor.name == "blk.0.ffn_up_exps.weight")
    assert (up.shape, up.role) == ((4, 160, 64), Role.EXPERT)
    assert up.sources == tuple(f"model.layers.0.block_sparse_moe.experts.{i}.w3.weight" for i in range(4))
    assert export.metadata["llama.expert_count"].value == 4
    assert export.metadata["llama.expert_used_count"].value == 2
    assert export.metadata["general.size_label"].value.startswith("4x")


def test_llama3_divisors_are_a_tensor(tmp_path: Path) -> None:
    frequencies = plan(write_model(tmp_path / "model", rope_scaling=LLAMA3)).tensors[-1]
    assert (frequencies.name, frequencies.role, frequencies.sources) == ("rope_freqs.weight", Role.ROPE, ())
    assert frequencies.values.dtype == np.float32
    # Wavelengths below 64 / 4 are left alone, those above 64 divided by 8, between them something between.
    assert frequencies.values[0] == 1.0
    assert np.allclose(frequencies.values[4:], 8.0)
    assert 1 < frequencies.values[2] < 8


def test_a_tied_output_that_is_stored_again_is_left_out(tmp_path: Path) -> None:
    def store_again(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    export = plan(with_tensors(write_model(tmp_path / "model", tie_word_embeddings=True), store_again))
    assert "output.weight" not in {tensor.name for tensor in export.tensors}


def test_two_large_matrices_are_compared_once_as_long_as_their_file_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def store(change: int) -> Callable[[Tensors], None]:
        def put(tensors: Tensors) -> None:
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + change

        return put

    read = []
    original = Checkpoint.read

    def counted(self: Checkpoint, name: str, rows: slice | None = None) -> np.ndarray:
        read.append(name)
        return original(self, name, rows)

    def has_output() -> tuple[bool, bool]:
        read.clear()
        return "output.weight" in {tensor.name for tensor in plan(model).tensors}, bool(read)

    monkeypatch.setattr(Checkpoint, "read", counted)
    model = with_tensors(write_model(tmp_path / "model", tie_word_embeddings=True), store(0))
    assert [has_output(), has_output()] == [(False, True), (False, False)]
    with_tensors(model, store(1))
    assert [has_output(), has_output()] == [(True, True), (True, False)]


def test_what_was_compared_may_be_forgotten_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another thread, which compares the matrices of another model."""

    class Forgetful(dict):
        def __setitem__(self, key: object, value: object) -> None:
            pass

    def store_again(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    monkeypatch.setattr("engine.export.gguf.plan._ALIKE", Forgetful())
    export = plan(with_tensors(write_model(tmp_path / "model", tie_word_embeddings=True), store_again))
    assert "output.weight" not in {tensor.name for tensor in export.tensors}


def test_a_tied_output_that_differs_is_kept(tmp_path: Path) -> None:
    """As transformers does: it unties what differs, whatever the config says."""

    def store_other(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1

    export = plan(with_tensors(write_model(tmp_path / "model", tie_word_embeddings=True), store_other))
    assert "output.weight" in {tensor.name for tensor in export.tensors}


def test_tables_that_follow_from_the_config_are_left_out_with_a_note(tmp_path: Path) -> None:
    def store_frequencies(tensors: Tensors) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)

    export = plan(with_tensors(write_model(tmp_path / "model"), store_frequencies))
    assert len(export.notes) == 1
    assert "rotary_emb.inv_freq" in export.notes[0]


def test_parts_outside_of_the_text_model_are_left_out_with_a_note(tmp_path: Path) -> None:
    def add_vision(tensors: Tensors) -> None:
        tensors["vision_tower.patch.weight"] = torch.ones(8, 8)

    export = plan(with_tensors(write_model(tmp_path / "model"), add_vision))
    assert "vision_tower.patch.weight" in export.notes[0]


def test_the_sliding_window_is_a_note(tmp_path: Path) -> None:
    assert "last 32 tokens" in plan(write_model(tmp_path / "a", **mistral(sliding_window=32))).notes[0]
    assert not plan(write_model(tmp_path / "b", **mistral(sliding_window=256))).notes


def lose_norm(tensors: Tensors) -> None:
    del tensors["model.norm.weight"]


def lose_head(tensors: Tensors) -> None:
    del tensors["lm_head.weight"]


def widen_gate(tensors: Tensors) -> None:
    tensors["model.layers.1.mlp.gate_proj.weight"] = torch.zeros(192, 64)


def pad_embedding(tensors: Tensors) -> None:
    tensors["model.embed_tokens.weight"] = torch.zeros(576, 64)


def add_unknown(tensors: Tensors) -> None:
    tensors["model.layers.0.mlp.adapter.weight"] = torch.zeros(8, 64)


def add_bias(tensors: Tensors) -> None:
    tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(64)


def pack(tensors: Tensors) -> None:
    name = "model.layers.0.mlp.up_proj."
    del tensors[name + "weight"]
    tensors[name + "qweight"] = torch.zeros(8, 160, dtype=torch.int32)
    tensors[name + "qzeros"] = torch.zeros(1, 20, dtype=torch.int32)
    tensors[name + "scales"] = torch.ones(1, 160, dtype=torch.float16)
    tensors[name + "g_idx"] = torch.zeros(64, dtype=torch.int32)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lose_norm, MissingTensorError, r"has no model\.norm\.weight"),
        (lose_head, MissingTensorError, r"has no lm_head\.weight"),
        (widen_gate, TensorShapeError, r"layers\.1\.mlp\.gate_proj.*\[192, 64\].*says \[160, 64\]"),
        (pad_embedding, TensorShapeError, r"embed_tokens.*\[576, 64\].*says \[512, 64\]"),
        (add_unknown, UnknownTensorError, r"mlp\.adapter\.weight"),
        (add_bias, UnknownTensorError, r"q_proj\.bias has no place"),
        (pack, UnsupportedModelError, r"up_proj\.qweight is stored as I32 \(GPTQ"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    change: Callable[[Tensors], None], error: type[UserError], words: str, tmp_path: Path
) -> None:
    folder = with_tensors(write_model(tmp_path / "model"), change)
    with pytest.raises(error, match=words):
        plan(folder)


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({"hidden_act": "gelu"}, UnsupportedModelError, 'hidden_act is "gelu"'),
        ({"max_position_embeddings": 2**33}, HyperParameterError, r"8589934592, where .* to 2\^32 - 1 is"),
        ({"max_position_embeddings": 0}, UnusableConfigError, "max_position_embeddings is 0, where a whole"),
        ({"rms_norm_eps": float("nan")}, HyperParameterError, "rms_norm_eps is nan, where a positive number"),
        ({"rms_norm_eps": float("inf")}, HyperParameterError, "rms_norm_eps is inf"),
        ({"rms_norm_eps": -1.0}, HyperParameterError, r"rms_norm_eps is -1\.0"),
        ({"rope_theta": None}, RopeScalingError, "rope_theta is None, where a positive number"),
        ({"model_type": "bloom"}, UnknownArchitectureError, '"bloom" cannot be converted'),
        ({"partial_rotary_factor": 0.5}, RopeScalingError, "partial_rotary_factor"),
    ],
)
def test_models_that_cannot_be_exported_are_refused(
    config: dict, error: type[UserError], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        plan(write_model(tmp_path / "model", **config))


def test_a_missing_expert_is_refused(tmp_path: Path) -> None:
    def lose_expert(tensors: Tensors) -> None:
        del tensors["model.layers.1.block_sparse_moe.experts.2.w1.weight"]

    folder = with_tensors(write_model(tmp_path / "model", **mixtral()), lose_expert)
    with pytest.raises(MissingTensorError, match=r"3 experts for blk\.1\.ffn_gate_exps\.weight.* 4"):
        plan(folder)


def test_a_config_that_claims_a_billion_blocks_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(MissingTensorError, match=r"too few for the 1,000,000,000 blocks"):
        plan(write_model_of_two_blocks_that_claims(tmp_path / "model", 10**9))


def write_model_of_two_blocks_that_claims(folder: Path, blocks: int) -> Path:
    write_model(folder)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(
        config.replace('"num_hidden_layers": 2', f'"num_hidden_layers": {blocks}')
    )
    return folder


def test_no_tokenizer(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError):
        plan(folder)


def test_a_gguf_source_keeps_metadata_names_and_rows(tmp_path: Path) -> None:
    """Of any architecture; only what the formats decide is written anew."""

    def unknown(export: Export) -> None:
        export.architecture = "nonesuch"
        export.metadata["general.architecture"] = GgufValue(GGUFValueType.STRING, "nonesuch")
        export.metadata["nonesuch.list"] = GgufValue(GGUFValueType.ARRAY, [1, 2], GGUFValueType.UINT8)

    path = export_gguf(write_model(tmp_path / "model"), unknown)
    with open_checkpoint(path) as checkpoint:
        export = plan_export(checkpoint)
        assert export.architecture == "nonesuch"
        dropped = checkpoint.metadata.keys() - export.metadata.keys()
        assert dropped == {"general.file_type", "general.quantization_version"}
        assert all(export.metadata[key] == checkpoint.metadata[key] for key in export.metadata)
        assert [tensor.name for tensor in export.tensors] == list(checkpoint.tensors)
        for tensor in export.tensors:
            rows = tensor.read(checkpoint, 0, int(np.prod(tensor.shape[:-1])))
            assert np.array_equal(rows.reshape(tensor.shape), checkpoint.read(tensor.name))
        assert not export.notes


def test_a_folder_whose_name_is_no_text(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model").rename(tmp_path / os.fsdecode(b"mod\xe8le"))
    assert plan(folder).metadata["general.name"].value == "mod\N{REPLACEMENT CHARACTER}le"


def test_small_matrices_of_other_architectures_stay_as_they_are(tmp_path: Path) -> None:
    """A Mamba's, by names alone: llama.cpp computes its convolution and decay in the types that they have."""
    import gguf

    shapes = {"ssm_conv1d.weight": (64, 4), "ssm_a": (64, 16), "ssm_in.weight": (128, 32), "ssm_d": (64,)}
    writer = gguf.GGUFWriter(tmp_path / "mamba.gguf", "mamba")
    writer.add_block_count(1)
    for name, shape in shapes.items():
        kind = np.float16 if name == "ssm_a" else np.float32
        writer.add_tensor(f"blk.0.{name}", np.ones(shape, kind))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    with open_checkpoint(tmp_path / "mamba.gguf") as checkpoint:
        export = plan_export(checkpoint)
    planned = make_plan(Recipe(default=Choice(format="Q8_0")), export.tensors)
    assert {tensor.name.removeprefix("blk.0."): tensor.format for tensor in planned.tensors} == {
        "ssm_conv1d.weight": "F32",
        "ssm_a": "F16",
        "ssm_in.weight": "Q8_0",
        "ssm_d": "F32",
    }
    assert planned.warnings == []
    assert "kept in F16" in str(planned.tensors[1].note)
