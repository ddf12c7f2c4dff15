"""A multimodal checkpoint shows its text model and reports the rest."""

import json
from pathlib import Path

import numpy as np
import pytest

from engine.checkpoint import open_checkpoint
from tests.engine.checkpoint.samples import gguf_bytes, info, string_pair, write_safetensors

ONE = ("F32", np.ones((2, 2), np.float32))


@pytest.mark.parametrize(
    ("prefix", "head", "vision"),
    [
        ("language_model.model.", "language_model.lm_head.weight", "vision_tower.vision_model."),
        ("model.language_model.", "lm_head.weight", "model.vision_tower."),
    ],
)
def test_the_text_part_of_a_folder(tmp_path: Path, prefix: str, head: str, vision: str) -> None:
    names = [
        prefix + "embed_tokens.weight",
        prefix + "layers.0.self_attn.q_proj.weight",
        prefix + "layers.1.mlp.down_proj.weight",
        head,
    ]
    others = [vision + "layers.0.mlp.fc1.weight", vision + "embed.weight", "multi_modal_projector.weight"]
    write_safetensors(tmp_path / "model.safetensors", dict.fromkeys(names + others, ONE))
    config = {
        "model_type": "llava",
        "image_token_index": 7,
        "tie_word_embeddings": False,
        "text_config": {"model_type": "mistral", "num_hidden_layers": 2, "hidden_size": 2},
        "vision_config": {"num_hidden_layers": 24},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.architecture == "mistral"
        assert checkpoint.blocks == 2
        assert not checkpoint.tied
        assert checkpoint.config is not None
        assert checkpoint.config["hidden_size"] == 2
        assert checkpoint.config["image_token_index"] == 7
        assert list(checkpoint.tensors) == names
        assert [tensor.canonical for tensor in checkpoint.tensors.values()] == [
            "token_embd.weight",
            "blk.0.attn_q.weight",
            "blk.1.ffn_down.weight",
            "output.weight",
        ]
        summary = checkpoint.summary()
        assert summary.parameters == 4 * 4
        assert summary.others == {"vision_tower": 2, "multi_modal_projector": 1}
        assert "vision_tower (2 tensors), multi_modal_projector (1 tensor)" in summary.notes[0]


def test_a_projector_file_has_no_text_model(tmp_path: Path) -> None:
    path = tmp_path / "mmproj.gguf"
    infos = [info("v.blk.0.attn_q.weight", (2,), 0, 0), info("mm.0.weight", (2,), 0, 32)]
    path.write_bytes(gguf_bytes([string_pair("general.architecture", "clip")], infos, bytes(40)))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.tensors == {}
        assert len(checkpoint.others) == 2
        assert not checkpoint.tied
        assert "There is no text model in it." in checkpoint.notes
