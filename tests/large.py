"""Checkpoints of real sizes for tests and benchmarks of memory, written in seconds and little memory.

Weights are bfloat16 or float16 with the spread of a trained model's (0.02); some megabytes of random ones are
repeated, so the files compress well but are as long as any.
"""

import json
import struct
from math import prod
from pathlib import Path

import numpy as np

from tests.tiny import llama_config, write_bpe

RANDOM = 1 << 22
"""Weights that are drawn; every tensor begins elsewhere in them."""


def large_config(blocks: int, **changes: object) -> dict:
    """A Llama of 45 million weights a block, and 17 million in each of embedding and output."""
    config = {
        "vocab_size": 8192,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": blocks,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 2048,
        "torch_dtype": "bfloat16",
    }
    return llama_config(**(config | changes))


def write_large(folder: Path, config: dict, shards: int, dtype: str = "BF16") -> int:
    """A Hugging Face folder of `shards` safetensors files with a tokenizer; returns the bytes of weights.

    dtype: "BF16" or "F16".
    """
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_bpe(folder, config["vocab_size"])
    drawn = np.random.default_rng(0).normal(0, 0.02, RANDOM).astype(np.float32)
    ones = np.ones(max(config["hidden_size"], 1), np.float32)
    weights, ones = (_stored(values, dtype) for values in (drawn, ones))
    shapes = llama_shapes(config)
    names, total = list(shapes), 0
    places: dict[str, str] = {}
    for index in range(shards):
        file = f"model-{index + 1:05}-of-{shards:05}.safetensors"
        part = names[index * len(names) // shards : (index + 1) * len(names) // shards]
        total += _write_shard(folder / file, {name: shapes[name] for name in part}, weights, ones, dtype)
        places |= dict.fromkeys(part, file)
    content = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    return total


def _stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 in 16 bits, cut off where it is bfloat16."""
    return values.astype("<f2") if dtype == "F16" else (values.view(np.uint32) >> 16).astype("<u2")


def llama_shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama under their published names, in their order."""
    hidden, ff = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for number in range(config["num_hidden_layers"]):
        block = f"model.layers.{number}."
        shapes |= {
            block + "input_layernorm.weight": (hidden,),
            block + "self_attn.q_proj.weight": (queries, hidden),
            block + "self_attn.k_proj.weight": (keys, hidden),
            block + "self_attn.v_proj.weight": (keys, hidden),
            block + "self_attn.o_proj.weight": (hidden, queries),
            block + "post_attention_layernorm.weight": (hidden,),
            block + "mlp.gate_proj.weight": (ff, hidden),
            block + "mlp.up_proj.weight": (ff, hidden),
            block + "mlp.down_proj.weight": (hidden, ff),
        }
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (config["vocab_size"], hidden)}


def _write_shard(
    path: Path, shapes: dict[str, tuple[int, ...]], weights: np.ndarray, ones: np.ndarray, dtype: str
) -> int:
    """One file; bytes of weights in it. Vectors (norms) are ones."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for number, shape in enumerate(shapes.values()):
            if len(shape) == 1:
                file.write(ones[: shape[0]].data)
                continue
            left, start = prod(shape), number * 65_537 % len(weights)
            while left:
                piece = weights[start : start + left]
                file.write(piece.data)
                left, start = left - len(piece), 0
    return end
