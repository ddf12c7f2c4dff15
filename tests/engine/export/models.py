"""Helpers of the export tests: tiny models of each architecture, and a plain loop that writes a plan."""

import zlib
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf.quants import quantize

from engine.checkpoint import Checkpoint, open_checkpoint
from engine.export.gguf import Export, make_parts, plan_export
from tests.tiny import llama_config, llama_tensors, write_folder

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


def write_model(folder: Path, *, without: tuple[str, ...] = (), shards: int = 1, **changes: object) -> Path:
    """A tiny model of `model_type` llama, mistral or mixtral; config keys in `without` are left out."""
    config = llama_config(**changes)
    tensors = llama_tensors(config)
    generator = torch.Generator().manual_seed(7)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.15

    hidden, ff = config["hidden_size"], config["intermediate_size"]
    for block in [f"model.layers.{i}." for i in range(config["num_hidden_layers"])]:
        if config.get("mlp_bias"):
            for name, size in (("gate", ff), ("up", ff), ("down", hidden)):
                tensors[f"{block}mlp.{name}_proj.bias"] = noise(size)
        if config["model_type"] == "mixtral":
            for name in ("gate", "up", "down"):
                del tensors[f"{block}mlp.{name}_proj.weight"]
            tensors[block + "block_sparse_moe.gate.weight"] = noise(config["num_local_experts"], hidden)
            for expert in range(config["num_local_experts"]):
                for name, shape in (("w1", (ff, hidden)), ("w2", (hidden, ff)), ("w3", (ff, hidden))):
                    tensors[f"{block}block_sparse_moe.experts.{expert}.{name}.weight"] = noise(*shape)
    stored = {key: value for key, value in config.items() if key not in without}
    return write_folder(folder, stored, tensors, shards=shards)


def mistral(**changes: object) -> dict:
    return {
        "model_type": "mistral",
        "architectures": ["MistralForCausalLM"],
        "sliding_window": None,
    } | changes


def mixtral(**changes: object) -> dict:
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}
    return {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]} | experts | changes


def write_gguf(
    checkpoint: Checkpoint, export: Export, path: Path, formats: dict[str, str] | None = None
) -> dict[str, int]:
    """Writes `export` with `gguf`'s own encoders (all F32 by default); the crc32 of each tensor."""
    formats = formats or all_f32(export)
    (part,) = make_parts(export, formats, 0)
    checksums = {}
    with path.open("wb") as file:
        file.write(part.header)
        for tensor in export.tensors:
            rows = tensor.read(checkpoint, 0, prod(tensor.shape[:-1]))
            data = quantize(rows, GGMLQuantizationType[formats[tensor.name]]).tobytes()
            checksums[tensor.name] = zlib.crc32(data)
            file.seek(part.offsets[tensor.name])
            file.write(data)
        file.truncate(part.size)
    return checksums


def all_f32(export: Export) -> dict[str, str]:
    return {tensor.name: "F32" for tensor in export.tensors}


def prompts(count: int = 3, length: int = 48) -> list[list[int]]:
    """Token ids of the tiny models' ordinary tokens."""
    generator = np.random.default_rng(0)
    return [generator.integers(3, 512, length).tolist() for _ in range(count)]


def export_gguf(
    folder: Path, change: Callable[[Export], None] = lambda export: None, *, path: Path | None = None
) -> Path:
    """A GGUF file of the folder, beside it or at `path`, as its plan is after `change(export)`."""
    path = path or folder.with_suffix(".gguf")
    with open_checkpoint(folder) as checkpoint:
        export = plan_export(checkpoint)
        change(export)
        write_gguf(checkpoint, export, path)
    return path
