"""A checkpoint as transformers sees it: a GGUF file gives back the weights and the logits of its source."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.api.errors import UserError
from engine.api.gguf import GgufValue
from engine.architectures import UnknownArchitectureError, architecture_of, transformers_view
from engine.architectures.config import (
    MissingMetadataError,
    UnusableConfigError,
    UnusableMetadataError,
)
from engine.architectures.view import TransformersView
from engine.checkpoint import open_checkpoint
from engine.checkpoint.errors import MissingTensorError, TensorShapeError, UnknownTensorError
from engine.export.gguf import Export, plan_export
from tests.engine.export.models import (
    LLAMA3,
    YARN,
    export_gguf,
    mistral,
    mixtral,
    prompts,
    write_gguf,
    write_model,
)
from tests.tiny import write_llama

CASES = {
    "plain": {},
    "linear": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "llama3": {"rope_scaling": LLAMA3},
    "yarn": {"rope_scaling": YARN},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "wide heads": {"head_dim": 32},
    "mistral": mistral(),
    "mixtral": mixtral(),
}


def to_gguf(folder: Path) -> Path:
    path = folder.with_suffix(".gguf")
    with open_checkpoint(folder) as checkpoint:
        write_gguf(checkpoint, plan_export(checkpoint), path)
    return path


def build(view: TransformersView) -> torch.nn.Module:
    """The whole model in memory, by the view's config, names and weights alone."""
    model = AutoModelForCausalLM.from_config(view.config, dtype=torch.float32)
    state = {name: torch.from_numpy(view.read(name)) for name in view.names}
    if view.config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    return model.eval()


@pytest.mark.parametrize("case", CASES)
def test_a_gguf_file_gives_back_weights_and_logits(case: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", **CASES[case])
    original = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with open_checkpoint(to_gguf(folder)) as checkpoint:
        model = build(transformers_view(checkpoint))
    state = original.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state.pop(name)), name
    assert not state
    token_ids = torch.tensor(prompts(1))
    with torch.no_grad():
        expected, found = original(token_ids).logits, model(token_ids).logits
    if case == "llama3":  # divisors in float32: a frequency may differ in its last place
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    else:
        assert torch.equal(found, expected)


def test_a_folder_is_seen_as_it_is(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", attention_bias=True)
    with open_checkpoint(folder) as checkpoint:
        view = transformers_view(checkpoint)
        assert view.names == set(checkpoint.tensors)
        assert view.config.attention_bias
        for name in view.names:
            assert np.array_equal(view.read(name), checkpoint.read(name))


def test_a_folder_of_an_architecture_without_description_is_seen_too(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", model_type="starcoder2", architectures=["Starcoder2ForCausalLM"])
    with open_checkpoint(folder) as checkpoint:
        assert transformers_view(checkpoint).config.model_type == "starcoder2"
        with pytest.raises(UnknownArchitectureError, match=r'"starcoder2".*llama.*convert_hf_to_gguf'):
            architecture_of(checkpoint)


def test_lone_weights_have_no_architecture(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "config.json").unlink()
    with (
        open_checkpoint(folder / "model.safetensors") as checkpoint,
        pytest.raises(UnknownArchitectureError, match=r"no config\.json"),
    ):
        transformers_view(checkpoint)


REFUSED = [
    ({"num_attention_heads": 3, "num_key_value_heads": 1}, r"llama model with hidden_size = 64; correct"),
    ({"num_attention_heads": 0}, r"num_attention_heads is 0, where a whole number from 1 on is needed"),
    ({"num_hidden_layers": 0}, r"num_hidden_layers is 0, where"),
    ({"max_position_embeddings": -4}, r"max_position_embeddings is -4, where"),
    ({"head_dim": "16"}, r'llama model with head_dim = "16"; correct'),
    ({"rope_scaling": {"type": "linear"}}, r'llama model with rope_scaling = \{"type": "linear"\}; correct'),
    ({"torch_dtype": "floaty"}, r"llama model with these settings; correct"),
    ({"text_config": []}, r"llama model with text_config = \[\]; correct"),
    ({"text_config": {"model_type": 5}}, r"names no architecture \(model_type\)"),
    ({"model_type": ["llama"]}, r"names no architecture \(model_type\)"),
]


@pytest.mark.parametrize(("config", "words"), REFUSED)
def test_a_config_that_transformers_refuses(config: dict, words: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stated | config))
    with (
        open_checkpoint(folder) as checkpoint,
        pytest.raises(UnusableConfigError, match=r"config\.json:? .*" + words) as caught,
    ):
        transformers_view(checkpoint)
    assert "rror" not in str(caught.value)  # the words of transformers' exceptions


def lose_tensor(export: Export) -> None:
    export.tensors = [tensor for tensor in export.tensors if tensor.name != "blk.1.ffn_up.weight"]


def add_tensor(export: Export) -> None:
    extra = replace(export.tensors[1], name="blk.0.attn_q_norm.weight")
    export.tensors.append(extra)


def wrong_size(export: Export) -> None:
    set_value(export, "llama.feed_forward_length", 96)


def lose_key(export: Export) -> None:
    del export.metadata["llama.embedding_length"]


def unequal_head_sizes(export: Export) -> None:
    set_value(export, "llama.attention.value_length", 32)


def no_heads(export: Export) -> None:
    set_value(export, "llama.attention.head_count", 0)


def odd_heads(export: Export) -> None:
    for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        set_value(export, f"llama.{key}", 15)


def unknown_architecture(export: Export) -> None:
    set_value(export, "general.architecture", "nonesuch")
    export.architecture = "nonesuch"


def set_value(export: Export, key: str, value: object) -> None:
    export.metadata[key] = GgufValue(export.metadata[key].type, value)


WRONG = [
    (lose_tensor, MissingTensorError, r"no tensor blk\.1\.ffn_up\.weight"),
    (add_tensor, UnknownTensorError, r"blk\.0\.attn_q_norm\.weight"),
    (wrong_size, TensorShapeError, r"\[160, 64\] where the metadata say \[96, 64\]"),
    (lose_key, MissingMetadataError, r"no llama\.embedding_length"),
    (unequal_head_sizes, UnusableMetadataError, r"llama\.attention\.value_length is 32"),
    (no_heads, UnusableMetadataError, r"llama\.attention\.head_count is 0, where a whole number"),
    (odd_heads, UnusableMetadataError, r"make a llama model with llama\.attention\.key_length = 15\.$"),
    (unknown_architecture, UnknownArchitectureError, '"nonesuch"'),
]


@pytest.mark.parametrize(
    ("change", "error", "words"), WRONG, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_gguf_file_that_is_wrong(
    change: object, error: type[UserError], words: str, tmp_path: Path
) -> None:
    path = export_gguf(write_model(tmp_path / "model"), change)
    with open_checkpoint(path) as checkpoint, pytest.raises(error, match=words):
        transformers_view(checkpoint)


def test_head_counts_by_block_are_taken_where_they_agree(tmp_path: Path) -> None:
    def by_block(export: Export) -> None:
        key = "llama.attention.head_count_kv"
        number = export.metadata[key]
        array = type(number.type).ARRAY
        export.metadata[key] = GgufValue(array, [number.value] * 2, number.type)

    with open_checkpoint(export_gguf(write_model(tmp_path / "model"), by_block)) as checkpoint:
        assert transformers_view(checkpoint).config.num_key_value_heads == 2


def test_an_unknown_architecture_is_one_sentence(tmp_path):
    folder = write_llama(tmp_path / "model", config={"model_type": "martian"})
    said = r"config\.json: transformers does not know the architecture 'martian'; .* exported\.$"
    with open_checkpoint(folder) as checkpoint, pytest.raises(UnusableConfigError, match=said):
        transformers_view(checkpoint)
