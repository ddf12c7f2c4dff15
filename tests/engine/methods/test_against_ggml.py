"""Squared errors of `search` against llama.cpp's own encoders, on the same arrays."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open

from engine.formats import decode
from engine.methods import encode
from tests.kernels.arrays import importance, ordinary
from tests.peers.ggml import ggml_encode

SAMPLE = Path(__file__).parents[3] / "resources" / "sample-model"
NAMES = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]
TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.v_proj": "attn_v",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def errors(weights: np.ndarray, name: str, matters: np.ndarray | None) -> tuple[float, float]:
    """Weighted squared error of ours and of ggml's bytes, both decoded by `gguf`."""
    kind = gguf.GGMLQuantizationType[name]
    both = []
    for data in (encode(weights, name, importance=matters), ggml_encode(weights, name, matters)):
        wrong = gguf.quants.dequantize(data, kind).astype(np.float64) - weights
        both.append(float((wrong**2 * (1 if matters is None else matters)).sum()))
    return both[0], both[1]


@pytest.mark.parametrize("kind", ["gaussian", "laplace", "heavy-tailed"])
@pytest.mark.parametrize("name", NAMES)
def test_no_worse_on_random_weights(name, kind):
    weights = ordinary(64, 2048)[kind]
    for matters in (None, importance(2048)):
        ours, ggml = errors(weights, name, matters)
        assert ours <= ggml


@pytest.fixture(scope="module")
def sample() -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Weights of two blocks and of the embedding, with the importance that came with the model."""
    matters = {}
    for tensor in gguf.GGUFReader(SAMPLE / "imatrix.gguf").tensors:
        if tensor.name.endswith(".in_sum2"):
            matters[tensor.name.removesuffix(".weight.in_sum2")] = np.array(tensor.data, np.float32).ravel()
    weights: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    with safe_open(SAMPLE / "model.safetensors", framework="pt") as file:
        weights["embedding"] = (
            file.get_slice("model.embed_tokens.weight")[:512].to(torch.float32).numpy(),
            None,
        )
        for block in (0, 3):
            for name, canonical in TENSORS.items():
                array = file.get_tensor(f"model.layers.{block}.{name}.weight").to(torch.float32).numpy()
                weights[f"{block}.{canonical}"] = (array[:256], matters[f"blk.{block}.{canonical}"])
    return weights


@pytest.mark.parametrize("name", NAMES)
def test_no_worse_on_the_sample_model(name, sample):
    for tensor, (weights, matters) in sample.items():
        for given in (None, matters):
            ours, ggml = errors(weights, name, given)
            assert ours <= ggml, (tensor, given is not None)


@pytest.mark.parametrize("name", ["Q4_K", "Q5_K", "Q6_K"])
def test_refitting_units_together_gains_on_the_k_quants(name):
    """What llama.cpp leaves on the table, on Gaussian weights: it stops before this step."""
    ours, ggml = errors(ordinary(64, 2048)["gaussian"], name, None)
    assert ours < {"Q4_K": 0.97, "Q5_K": 0.94, "Q6_K": 0.90}[name] * ggml


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_rounding_to_nearest_is_as_good_as_ggmls(name):
    """The same scales, but codes are rounded to the scale as it is stored, which helps a little."""
    weights = ordinary(64, 2048)["laplace"]
    kind = gguf.GGMLQuantizationType[name]
    ours = ((decode(encode(weights, name, "rtn"), name, 2048).astype(np.float64) - weights) ** 2).sum()
    ggml = (
        (gguf.quants.dequantize(ggml_encode(weights, name), kind).astype(np.float64) - weights) ** 2
    ).sum()
    assert 0.99 * ggml < ours <= ggml
