"""Sources that another tool has quantized: FP8 is read with its scales, packed ones are named and refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engine.api.model import Role
from engine.checkpoint import open_checkpoint
from engine.checkpoint.errors import PackedTensorError, UnknownTypeError

NAME = "model.layers.0.self_attn.q_proj"


def write(folder: Path, tensors: dict[str, torch.Tensor], settings: dict | None = None) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    config = {"model_type": "llama", "num_hidden_layers": 1}
    if settings:
        config["quantization_config"] = settings
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_byte_of_an_8_bit_float(tmp_path: Path, dtype: torch.dtype) -> None:
    weight = torch.arange(256, dtype=torch.uint8).view(dtype)
    with open_checkpoint(write(tmp_path, {"w": weight})) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("w"), weight.float().numpy())
        assert checkpoint.quantization == f"FP8 {'E4M3' if dtype == torch.float8_e4m3fn else 'E5M2'}"


def test_powers_of_two(tmp_path: Path) -> None:
    weight = torch.arange(256, dtype=torch.uint8).view(torch.float8_e8m0fnu)
    save_file({"w": weight}, tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read("w"), weight.float().numpy())


@pytest.mark.parametrize(
    ("suffix", "shape", "block", "label"),
    [
        ("weight_scale", (), None, "FP8 E4M3, one scale a tensor"),
        ("weight_scale", (1,), None, "FP8 E4M3, one scale a tensor"),
        ("weight_scale", (300, 1), None, "FP8 E4M3, one scale a row"),
        ("weight_scale", (300,), None, "FP8 E4M3, one scale a row"),
        ("weight_scale_inv", (3, 2), None, "FP8 E4M3, one scale a block"),
        ("weight_scale_inv", (3, 2), [128, 128], "FP8 E4M3, blocks of 128 × 128"),
        ("weight_scale_inv", (5, 4), [64, 48], "FP8 E4M3, blocks of 64 × 48"),
    ],
)
def test_fp8_is_multiplied_by_its_scales(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], block: list[int] | None, label: str
) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(300, 190, generator=generator).to(torch.float8_e4m3fn)
    scale = torch.rand(shape, generator=generator) + 0.5
    full = scale.reshape(-1, 1) if len(shape) == 1 else scale
    if len(shape) == 2 and shape[1] > 1:
        rows, columns = block or [128, 128]
        full = scale.repeat_interleave(rows, 0)[:300].repeat_interleave(columns, 1)[:, :190]
    expected = (weight.float() * full).numpy()
    tensors = {f"{NAME}.weight": weight, f"{NAME}.{suffix}": scale, f"{NAME}.input_scale": torch.ones(1)}
    settings = {"quant_method": "fp8", "weight_block_size": block}
    with open_checkpoint(write(tmp_path, tensors, settings)) as checkpoint:
        assert checkpoint.quantization == label
        np.testing.assert_array_equal(checkpoint.read(f"{NAME}.weight"), expected)
        for size in (1, 7, 128, 299):
            pieces = [checkpoint.read(f"{NAME}.weight", slice(i, i + size)) for i in range(0, 300, size)]
            np.testing.assert_array_equal(np.concatenate(pieces), expected)
        assert checkpoint.tensors[f"{NAME}.weight"].role == Role.Q
        assert checkpoint.tensors[f"{NAME}.{suffix}"].role == Role.SCALE
        assert checkpoint.tensors[f"{NAME}.{suffix}"].canonical is None
        assert checkpoint.summary().parameters == 300 * 190


def test_fp8_experts_in_one_stack(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.experts.gate_up_proj"
    weight = torch.randn(3, 256, 128).to(torch.float8_e4m3fn)
    scale = torch.rand(3, 2, 1)
    folder = write(tmp_path, {name: weight, f"{name}_scale_inv": scale})
    expected = weight.float() * scale.repeat_interleave(128, 1)
    with open_checkpoint(folder) as checkpoint:
        np.testing.assert_array_equal(checkpoint.read(name), expected.numpy())
        np.testing.assert_array_equal(checkpoint.read(name, slice(1, 2)), expected[1:2].numpy())


def test_scales_that_do_not_fit(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.ones(300, 8).to(torch.float8_e4m3fn), "a.weight_scale": torch.ones(7, 1)}
    with (
        open_checkpoint(write(tmp_path, tensors)) as checkpoint,
        pytest.raises(UnknownTypeError, match=r"a\.weight .* scales of shape \(7, 1\)"),
    ):
        checkpoint.read("a.weight")


def int32(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.int32)


# Name, tensors of one module [64 outputs, 256 inputs], settings (None: told by names and shapes), label.
PACKED = {
    "gptq": (
        {"qweight": int32(32, 64), "qzeros": int32(2, 8), "scales": torch.ones(2, 64), "g_idx": int32(256)},
        {"quant_method": "gptq", "bits": 4, "group_size": 128},
        "GPTQ, 4 bits, groups of 128",
    ),
    "gptq without config, 3 bits": (
        {"qweight": int32(24, 64), "qzeros": int32(4, 6), "scales": torch.ones(4, 64), "g_idx": int32(256)},
        None,
        "GPTQ, 3 bits, groups of 64",
    ),
    "gptq, one group": (
        {"qweight": int32(64, 64), "qzeros": int32(1, 16), "scales": torch.ones(1, 64), "g_idx": int32(256)},
        {"quant_method": "gptq", "bits": 8, "group_size": -1},
        "GPTQ, 8 bits, one group a row",
    ),
    "awq": (
        {"qweight": int32(256, 8), "qzeros": int32(2, 8), "scales": torch.ones(2, 64)},
        {"quant_method": "awq", "bits": 4, "group_size": 128},
        "AWQ, 4 bits, groups of 128",
    ),
    "awq without config": (
        {"qweight": int32(256, 8), "qzeros": int32(8, 8), "scales": torch.ones(8, 64)},
        None,
        "AWQ, 4 bits, groups of 32",
    ),
    "compressed-tensors": (
        {"weight_packed": int32(64, 32), "weight_scale": torch.ones(64, 2), "weight_shape": torch.ones(2)},
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 128}}},
        },
        "compressed-tensors pack-quantized, 4 bits, groups of 128",
    ),
    "compressed-tensors, 8-bit integers": (
        {"weight": torch.ones(64, 256, dtype=torch.int8), "weight_scale": torch.ones(64, 1)},
        {
            "quant_method": "compressed-tensors",
            "format": "int-quantized",
            "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "int", "group_size": None}}},
        },
        "compressed-tensors int-quantized, 8 bits",
    ),
    "bitsandbytes, 4 bits": (
        {
            "weight": torch.ones(64 * 128, 1, dtype=torch.uint8),
            "weight.absmax": torch.ones(256),
            "weight.quant_map": torch.ones(16),
            "weight.quant_state.bitsandbytes__nf4": torch.ones(90, dtype=torch.uint8),
        },
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        "bitsandbytes NF4",
    ),
    "bitsandbytes, 8 bits": (
        {
            "weight": torch.ones(64, 256, dtype=torch.int8),
            "SCB": torch.ones(64),
            "weight_format": torch.ones((), dtype=torch.uint8),
        },
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        "bitsandbytes INT8",
    ),
    "hqq": (
        {
            "W_q": torch.ones(64 * 128, 1, dtype=torch.uint8),
            "scale": torch.ones(256),
            "zero": torch.ones(256),
            "nbits": torch.tensor(4),
        },
        {
            "quant_method": "hqq",
            "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}},
        },
        "HQQ, 4 bits, groups of 64",
    ),
    "another tool": (
        {"weight": torch.ones(64, 256, dtype=torch.uint8)},
        {"quant_method": "newest"},
        "newest (not supported)",
    ),
}


@pytest.mark.parametrize("case", PACKED)
def test_packed_sources_are_named_and_refused(tmp_path: Path, case: str) -> None:
    parts, settings, label = PACKED[case]
    folder = write(tmp_path, {f"{NAME}.{part}": tensor for part, tensor in parts.items()}, settings)
    packed = f"{NAME}.{next(iter(parts))}"
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.quantization == label
        assert checkpoint.summary().quantization == label
        assert checkpoint.summary().parameters == 64 * 256
        assert checkpoint.tensors[packed].role == Role.Q
        assert checkpoint.tensors[packed].canonical == "blk.0.attn_q.weight"
        companions = [tensor for name, tensor in checkpoint.tensors.items() if name != packed]
        assert {tensor.role for tensor in companions} <= {Role.SCALE}
        with pytest.raises(PackedTensorError, match="use the original model") as error:
            checkpoint.read(packed)
        assert label in str(error.value)
        assert packed in str(error.value)


def test_mxfp4_experts_are_named(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.experts.down_proj"
    blocks = torch.ones(2, 64, 8, 16, dtype=torch.uint8)
    tensors = {f"{name}_blocks": blocks, f"{name}_scales": torch.ones(2, 64, 8, dtype=torch.uint8)}
    with open_checkpoint(write(tmp_path, tensors, {"quant_method": "mxfp4"})) as checkpoint:
        assert checkpoint.quantization == "MXFP4"
        assert checkpoint.summary().parameters == 2 * 64 * 256
        assert checkpoint.tensors[f"{name}_blocks"].role == Role.EXPERT
        with pytest.raises(PackedTensorError, match="MXFP4"):
            checkpoint.read(f"{name}_blocks")


def test_settings_for_loading_do_not_make_plain_weights_quantized(tmp_path: Path) -> None:
    folder = write(tmp_path, {"w": torch.ones(4).bfloat16()}, {"quant_method": "bitsandbytes"})
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.quantization is None
        assert checkpoint.read("w").tolist() == [1, 1, 1, 1]


def test_the_settings_file_of_older_gptq_tools(tmp_path: Path) -> None:
    parts, _, _ = PACKED["gptq"]
    folder = write(tmp_path, {f"{NAME}.{part}": tensor for part, tensor in parts.items()})
    (folder / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": 64}))
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.quantization == "GPTQ, 4 bits, groups of 64"
