"""The families that are like Llama: what is refused and why, what is said, how experts may be stored."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.api.errors import UserError
from engine.api.jobs import QuantizeRequest
from engine.api.model import Role
from engine.api.recipe import Choice, Recipe
from engine.architectures import UnknownArchitectureError, transformers_view
from engine.architectures.config import UnusableConfigError, UnusableMetadataError
from engine.architectures.rope import RopeScalingError
from engine.checkpoint import open_checkpoint
from engine.checkpoint.errors import TensorShapeError, UnknownTensorError
from engine.export.gguf import Export, plan_export
from engine.export.gguf.plan import HyperParameterError, UnsupportedModelError
from engine.quantize import quantize
from tests.engine.export.models import LLAMA3, YARN, export_gguf, prompts
from tests.engine.export.random_models import write_random
from tests.engine.streamed import streamed_log_probabilities

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 96}
SETTINGS: dict[str, dict] = {
    "qwen2": {},
    "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 128},
    "qwen3": {"head_dim": 16},
    "qwen3_moe": EXPERTS | {"norm_topk_prob": True, "head_dim": 16},
    "olmo2": {},
    "smollm3": {"num_hidden_layers": 4},
    "granite": {"attention_multiplier": 0.25},
    "mixtral": {"num_local_experts": 4},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives the folder of a kind, made once; `stacked` as `write_random` has it."""
    made: dict[tuple[str, bool], Path] = {}

    def make(kind: str, *, stacked: bool = False) -> Path:
        if (kind, stacked) not in made:
            folder = tmp_path_factory.mktemp("model") / "model"
            made[kind, stacked] = write_random(folder, kind, stacked=stacked, **SETTINGS[kind])
        return made[kind, stacked]

    return make


def with_config(folder: Path, copy: Path, changes: dict) -> Path:
    """A copy of `folder` with `changes` to its config.json."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | changes))
    return copy


def plan(path: Path) -> Export:
    with open_checkpoint(path) as checkpoint:
        return plan_export(checkpoint)


def older(**scaling: object) -> dict:
    return {"rope_parameters": None, "rope_theta": 10000.0, "rope_scaling": scaling}


EVERY = "experts in every block only"
REFUSED: list[tuple[str, dict, type[UserError], str]] = [
    ("qwen2", {"head_dim": 32}, UnsupportedModelError, r"head_dim is 32, .*attention_heads \(16\) only"),
    ("qwen2", {"head_dim": 0}, UnusableConfigError, "head_dim is 0, where a whole number from 1 on"),
    ("qwen2", {"hidden_act": "gelu"}, UnsupportedModelError, 'hidden_act is "gelu"'),
    ("qwen2", older(**LLAMA3), RopeScalingError, '"llama3" cannot be written .* linear, dynamic and yarn'),
    ("qwen3", older(**YARN, beta_fast=16), RopeScalingError, 'yarn" with a ramp of its own cannot'),
    ("qwen3", older(type="mrope", mrope_section=[2, 3, 3]), RopeScalingError, '"mrope" cannot'),
    ("qwen3", {"attention_bias": True}, UnsupportedModelError, "attention_bias is true"),
    ("qwen3_moe", {"attention_bias": True}, UnsupportedModelError, "attention_bias is true"),
    ("olmo2", {"attention_bias": True}, UnsupportedModelError, "attention_bias is true"),
    ("smollm3", {"mlp_bias": True}, UnsupportedModelError, "mlp_bias is true"),
    ("smollm3", {"no_rope_layers": [1, 1]}, UnsupportedModelError, "has 2 items for 4 blocks"),
    ("smollm3", {"no_rope_layers": [1] * 4}, UnsupportedModelError, "no_rope_layers is 1 for block 3"),
    ("smollm3", {"no_rope_layers": [1, 0, 1, 0]}, UnsupportedModelError, "is 0 for block 1"),
    ("granite", {"logits_scaling": 0}, HyperParameterError, "logits_scaling is 0, where a positive number"),
    ("granite", {"attention_multiplier": -1.0}, HyperParameterError, r"multiplier is -1\.0"),
    ("granite", {"residual_multiplier": float("nan")}, HyperParameterError, "residual_multiplier is nan"),
    ("mixtral", {"num_experts_per_tok": 5}, UnusableConfigError, "each token goes to 5 experts .* are 4"),
    ("qwen2_moe", {"num_experts_per_tok": 9}, UnusableConfigError, "each token goes to 9 experts .* are 4"),
    ("qwen3_moe", {"num_experts_per_tok": 9}, UnusableConfigError, "each token goes to 9 experts .* are 4"),
    ("qwen3_moe", {"num_experts_per_tok": 0}, HyperParameterError, "num_experts_per_tok is 0"),
    ("qwen2_moe", {"shared_expert_intermediate_size": 0}, HyperParameterError, "intermediate_size is 0"),
    ("qwen2_moe", {"norm_topk_prob": True}, UnsupportedModelError, "norm_topk_prob is true"),
    ("qwen3_moe", {"norm_topk_prob": False}, UnsupportedModelError, "norm_topk_prob is false"),
    ("qwen2_moe", {"decoder_sparse_step": 2}, UnsupportedModelError, "is 2, so block 0 .* " + EVERY),
    ("qwen2_moe", {"decoder_sparse_step": 0}, UnusableConfigError, "decoder_sparse_step is 0, where"),
    ("qwen3_moe", {"mlp_only_layers": [1]}, UnsupportedModelError, "holds 1, so block 1 .* " + EVERY),
    ("qwen2_moe", {"qkv_bias": False}, UnknownTensorError, r"proj\.bias has no place in a qwen2_moe"),
    ("qwen3_moe", {"moe_intermediate_size": 64}, TensorShapeError, r"\[96, 64\].* says \[64, 64\]"),
]


@pytest.mark.parametrize(("kind", "changes", "error", "words"), REFUSED)
def test_what_cannot_be_exported_is_refused_with_the_reason(
    kind: str,
    changes: dict,
    error: type[UserError],
    words: str,
    model: Callable[..., Path],
    tmp_path: Path,
) -> None:
    folder = with_config(model(kind), tmp_path / "model", changes)
    with pytest.raises(error, match=words) as caught:
        plan(folder)
    assert "\n" not in str(caught.value)


WINDOWS = {"use_sliding_window": True, "sliding_window": 16, "layer_types": None}


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("qwen2", WINDOWS | {"max_window_layers": 1}, True),
        ("qwen2", WINDOWS | {"max_window_layers": 2}, False),
        ("qwen2", WINDOWS | {"use_sliding_window": False}, False),
        ("qwen2_moe", WINDOWS, True),
        ("qwen3_moe", WINDOWS, True),
        ("smollm3", WINDOWS, True),
        ("qwen3", {}, False),
    ],
)
def test_a_sliding_window_is_said(
    kind: str, changes: dict, said: bool, model: Callable[..., Path], tmp_path: Path
) -> None:
    notes = plan(with_config(model(kind), tmp_path / "model", changes)).notes
    assert any("last 16 tokens" in note for note in notes) is said


@pytest.mark.parametrize("kind", ["qwen2_moe", "qwen3_moe", "mixtral"])
def test_experts_stored_stacked_or_one_by_one_give_the_same_file(
    kind: str, model: Callable[..., Path]
) -> None:
    apart, stacked = plan(model(kind)), plan(model(kind, stacked=True))
    up = next(tensor for tensor in stacked.tensors if tensor.name == "blk.0.ffn_up_exps.weight")
    assert up.sources == ("model.layers.0.mlp.experts.gate_up_proj",)
    assert up.role is Role.EXPERT
    with open_checkpoint(model(kind)) as one, open_checkpoint(model(kind, stacked=True)) as other:
        for first, second in zip(apart.tensors, stacked.tensors, strict=True):
            assert (first.name, first.shape, first.role) == (second.name, second.shape, second.role)
            rows = int(np.prod(first.shape[:-1]))
            whole = first.read(one, 0, rows)
            assert np.array_equal(second.read(other, 0, rows), whole)
            for start, stop in ((0, 1), (rows // 3, rows), (rows // 3, rows // 2 + 1), (rows - 1, rows)):
                assert np.array_equal(second.read(other, start, stop), whole[start:stop])
    assert apart.metadata == stacked.metadata | {"general.name": apart.metadata["general.name"]}


def twice(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.0.mlp.experts.0.up_proj.weight"] = torch.zeros(96, 64)


def too_few_rows(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.0.mlp.experts.gate_up_proj"] = torch.zeros(4, 96, 64)


def too_few_experts(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.1.mlp.experts.down_proj"] = torch.zeros(3, 64, 96)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (twice, UnknownTensorError, "twice"),
        (too_few_rows, TensorShapeError, r"gate_up_proj has the shape \[4, 96, 64\] .* \[4, 192, 64\]"),
        (too_few_experts, TensorShapeError, r"down_proj has the shape \[3, 64, 96\] .* \[4, 64, 96\]"),
    ],
)
def test_stacked_experts_that_do_not_fit_are_named(
    change: Callable[[dict], None],
    error: type[UserError],
    words: str,
    model: Callable[..., Path],
    tmp_path: Path,
) -> None:
    folder = with_config(model("qwen3_moe", stacked=True), tmp_path / "model", {})
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(error, match=words):
        plan(folder)


def test_routers_stay_in_f32_whatever_is_asked(
    model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    output = tmp_path / "model.gguf"
    recipe = Recipe(default=Choice(method="rtn", format="Q8_0"))
    folder = model("qwen2_moe", stacked=True)
    quantize(QuantizeRequest(model=str(folder), output=str(output), recipe=recipe))
    with open_checkpoint(output) as checkpoint:
        types = {name: tensor.dtype for name, tensor in checkpoint.tensors.items()}
    for name, dtype in types.items():
        plain = "norm" in name or "ffn_gate_inp" in name or name.endswith(".bias")
        assert dtype == ("F32" if plain else "Q8_0"), name
    assert types["blk.0.ffn_gate_inp_shexp.weight"] == "F32"
    difference = streamed_log_probabilities(output, prompts(1)) - streamed_log_probabilities(
        folder, prompts(1)
    )
    assert 0 < np.quantile(np.abs(difference), 0.9) < 0.1


def drop(*keys: str) -> Callable[[Export], None]:
    def change(export: Export) -> None:
        for key in keys:
            del export.metadata[f"{export.architecture}.{key}"]

    return change


def test_keys_that_other_writers_leave_out_have_llama_cpps_defaults(tmp_path: Path) -> None:
    """transformers' own defaults are those of one published model of each family."""
    folder = write_random(tmp_path / "model", "qwen3", head_dim=16, num_key_value_heads=4)
    sizes = ("attention.key_length", "attention.value_length", "attention.head_count_kv")
    path = export_gguf(folder, drop(*sizes, "rope.dimension_count"))
    assert np.array_equal(
        streamed_log_probabilities(path, prompts(1)), streamed_log_probabilities(folder, prompts(1))
    )


def test_granite_without_a_factor_on_attention_has_the_usual_one(model: Callable[..., Path]) -> None:
    folder = model("granite")
    expected = streamed_log_probabilities(folder, prompts(1))
    for keys in (("attention.scale",), ("attention.scale", "attention.key_length")):
        path = export_gguf(folder, drop(*keys))
        assert np.array_equal(streamed_log_probabilities(path, prompts(1)), expected), "16 ** -0.5 is 0.25"


def test_the_gate_of_the_shared_expert_may_be_a_vector(model: Callable[..., Path]) -> None:
    """ggml leaves out a leading axis of length 1 when it writes a file again."""
    folder = model("qwen2_moe")
    expected = streamed_log_probabilities(folder, prompts(1))

    def flatten(export: Export) -> None:
        with open_checkpoint(folder) as checkpoint:
            for index, tensor in enumerate(export.tensors):
                if "ffn_gate_inp_shexp" in tensor.name:
                    vector = tensor.read(checkpoint, 0, 1)[0]
                    export.tensors[index] = replace(tensor, shape=(64,), sources=(), values=vector)

    path = export_gguf(folder, flatten)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.tensors["blk.0.ffn_gate_inp_shexp.weight"].shape == (64,)
    assert np.array_equal(streamed_log_probabilities(path, prompts(1)), expected)


def test_a_file_whose_tokens_go_to_more_experts_than_there_are(model: Callable[..., Path]) -> None:
    def more(export: Export) -> None:
        key = "qwen3moe.expert_used_count"
        export.metadata[key] = replace(export.metadata[key], value=9)

    path = export_gguf(model("qwen3_moe"), more)
    said = r"each token goes to 9 experts \(qwen3moe\.expert_used_count\), where there are 4\.$"
    with open_checkpoint(path) as checkpoint, pytest.raises(UnusableMetadataError, match=said):
        transformers_view(checkpoint)


def test_olmo_3_under_the_name_of_olmo_2_is_not_measured_without_its_window(
    model: Callable[..., Path],
) -> None:
    def windowed(export: Export) -> None:
        window = replace(export.metadata["olmo2.block_count"], value=16)
        export.metadata["olmo2.attention.sliding_window"] = window

    with (
        open_checkpoint(export_gguf(model("olmo2"), windowed)) as checkpoint,
        pytest.raises(UnknownArchitectureError, match=r'"olmo2" cannot be evaluated here \(another kind'),
    ):
        transformers_view(checkpoint)
