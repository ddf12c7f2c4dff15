"""Rotary positions: the row order against a rotation, and scaling there and back against transformers."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gguf import GGUFValueType
from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from engine.api.gguf import GgufValue
from engine.architectures.description import Rope
from engine.architectures.families.llama import ROPE
from engine.architectures.rope import (
    FREQUENCIES,
    RopeScalingError,
    UnreadableRopeError,
    rope_metadata,
    rope_order,
    rope_parameters,
)
from tests.engine.export.models import LLAMA3, YARN
from tests.tiny import llama_config

SCALINGS = {
    "none": None,
    "linear": {"type": "linear", "factor": 2.0},
    "dynamic": {"type": "dynamic", "factor": 2.0},
    "llama3": LLAMA3,
    "yarn": YARN,
    "yarn, attention factor": YARN | {"attention_factor": 1.5},
    "yarn, mscale": YARN | {"mscale": 1.0, "mscale_all_dim": 0.7},
    "yarn, own ramp": YARN | {"beta_fast": 2.0, "beta_slow": 0.5},
    "yarn, ramp not rounded": YARN | {"truncate": False, "attention_factor": 1.2},
}


def config_with(scaling: dict | None, **changes: object) -> object:
    # Configs take the dictionary as their own and change it.
    scaling = dict(scaling) if scaling else None
    return AutoConfig.for_model(**llama_config(head_dim=32, rope_scaling=scaling, **changes))


def frequencies(config: object) -> tuple[np.ndarray, float]:
    """float32 [head_dim / 2] and the factor on queries and keys, as transformers' module has them."""
    module = LlamaRotaryEmbedding(config)
    module(torch.zeros(1), torch.arange(40)[None])
    return module.inv_freq.numpy(), float(module.attention_scaling)


def test_order_turns_halves_into_pairs() -> None:
    """Rotating neighbours of the reordered rows is rotating halves of the original ones."""
    config = SimpleNamespace(head_dim=6)
    rows = np.random.default_rng(0).standard_normal(18)
    order = rope_order(config, 18)
    assert sorted(order) == list(range(18))
    angles = np.array([0.3, 0.7, 1.1])
    heads = rows.reshape(3, 6)
    first, second = heads[:, :3], heads[:, 3:]
    halves = np.concatenate(
        [
            first * np.cos(angles) - second * np.sin(angles),
            second * np.cos(angles) + first * np.sin(angles),
        ],
        axis=1,
    )
    pairs = rows[order].reshape(3, 3, 2)
    turned = np.stack(
        [
            pairs[..., 0] * np.cos(angles) - pairs[..., 1] * np.sin(angles),
            pairs[..., 1] * np.cos(angles) + pairs[..., 0] * np.sin(angles),
        ],
        axis=-1,
    )
    assert np.allclose(turned.reshape(-1), halves.reshape(-1)[order], rtol=1e-12, atol=0)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_scaling_comes_back_from_gguf_with_the_same_frequencies(scaling: str) -> None:
    config = config_with(SCALINGS[scaling], rope_theta=20000.0)
    metadata, divisors, _ = rope_metadata(config, ROPE, "llama")
    stored = {key: as_stored(value) for key, value in metadata.items()}
    back = config_with(None)
    back.rope_parameters = rope_parameters(
        stored, ROPE, "llama", divisors, 32, config.max_position_embeddings
    )
    expected, factor = frequencies(config)
    found, found_factor = frequencies(back)
    if not divisors:
        assert np.array_equal(found, expected)
    else:  # a divisor in float32 gives back the frequency to one unit in its last place
        np.testing.assert_allclose(found, expected, rtol=2.5e-7, atol=0)
    assert found_factor == pytest.approx(factor, rel=1e-7)


def as_stored(value: GgufValue) -> GgufValue:
    """Floats have 32 bits in a file."""
    if isinstance(value.value, float):
        return GgufValue(value.type, float(np.float32(value.value)))
    return value


@pytest.mark.parametrize("scaling", ["linear", "llama3", "yarn", "yarn, attention factor", "yarn, own ramp"])
def test_these_scalings_change_something(scaling: str) -> None:
    """The test above can fail: none of these equals the unscaled frequencies."""
    config = config_with(SCALINGS[scaling])
    plain = frequencies(config_with(None))
    assert not np.allclose(frequencies(config)[0], plain[0], rtol=1e-3)


def test_both_spellings_are_one() -> None:
    older = config_with(LLAMA3, rope_theta=500000.0)
    newer = llama_config(head_dim=32, rope_parameters=LLAMA3 | {"rope_theta": 500000.0})
    del newer["rope_theta"]
    first, second = (
        rope_metadata(older, ROPE, "llama"),
        rope_metadata(AutoConfig.for_model(**newer), ROPE, "llama"),
    )
    assert first[0] == second[0]
    assert np.array_equal(first[1][FREQUENCIES], second[1][FREQUENCIES])


def test_dynamic_scaling_is_left_to_the_reader() -> None:
    _, divisors, notes = rope_metadata(config_with(SCALINGS["dynamic"]), ROPE, "llama")
    assert not divisors
    assert "beyond 256 tokens" in notes[0]


def test_scaling_that_llama_cpp_lacks_is_refused() -> None:
    longrope = {
        "rope_type": "longrope",
        "short_factor": [1.0] * 16,
        "long_factor": [2.0] * 16,
        "original_max_position_embeddings": 64,
    }
    with pytest.raises(RopeScalingError, match='rope scaling "longrope" cannot be written'):
        rope_metadata(config_with(longrope), Rope(), "llama")


@pytest.mark.parametrize(
    ("scaling", "change", "words"),
    [
        ("none", {"rope_theta": None}, "rope_theta is None"),
        ("linear", {"factor": None}, "factor is None"),
        ("llama3", {"low_freq_factor": None}, "low_freq_factor is None"),
        ("yarn", {"original_max_position_embeddings": None}, "original_max_position_embeddings is None"),
        ("yarn", {"beta_fast": "x"}, "beta_fast is 'x'"),
        ("yarn", {"mscale": "x", "mscale_all_dim": 1.0}, "mscale is 'x', where a number"),
        ("llama3", {"rope_theta": 1e300}, r"llama3. give frequencies that are zero"),
    ],
)
def test_scaling_that_cannot_be_computed(scaling: str, change: dict, words: str) -> None:
    config = config_with(SCALINGS[scaling])
    config.rope_parameters |= change
    with pytest.raises(RopeScalingError, match=words):
        rope_metadata(config, ROPE, "llama")


LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0 + i / 16 for i in range(16)],
    "long_factor": [1.0 + i for i in range(16)],
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize("attention", [None, 1.25])
def test_longrope_comes_back_from_gguf(attention: float | None) -> None:
    config = config_with(LONGROPE | {"attention_factor": attention})
    metadata, tensors, notes = rope_metadata(config, ROPE, "llama")
    stored = {key: as_stored(value) for key, value in metadata.items()}
    back = rope_parameters(stored, ROPE, "llama", tensors, 32, 256)
    assert (back["rope_type"], back["original_max_position_embeddings"]) == ("longrope", 64)
    for name in ("short_factor", "long_factor"):
        np.testing.assert_allclose(back[name], LONGROPE[name], rtol=1e-7)
    usual = (1 + np.log(4) / np.log(64)) ** 0.5
    assert back["attention_factor"] == pytest.approx(attention or usual, rel=1e-6)
    assert "beyond 64 tokens" in notes[0]


def test_factors_that_no_frequencies_come_of() -> None:
    config = config_with(LONGROPE | {"original_max_position_embeddings": 1})  # divides by its logarithm
    with pytest.raises(RopeScalingError, match="give no frequencies"):
        rope_metadata(config, ROPE, "llama")


@pytest.mark.parametrize(
    "change", [{"long_factor": [1.0] * 15}, {"short_factor": None}, {"long_factor": ["x"] * 16}]
)
def test_factors_that_do_not_fit_are_refused(change: dict) -> None:
    config = config_with(LONGROPE)
    config.rope_parameters |= change
    with pytest.raises(RopeScalingError, match=f"{next(iter(change))} of .* list of 16 positive numbers"):
        rope_metadata(config, ROPE, "llama")


@pytest.mark.parametrize(("head", "rotated"), [(32, 8), (44, 30), (64, 64)])
def test_the_rotated_part_of_a_head_comes_back(head: int, rotated: int) -> None:
    """44 * (30 / 44) is a little less than 30, and transformers rounds down."""
    metadata = {"stablelm.rope.dimension_count": GgufValue(GGUFValueType.UINT32, rotated)}
    part = rope_parameters(metadata, Rope(partial=True), "stablelm", {}, head, 256)["partial_rotary_factor"]
    assert int(head * part) == rotated


@pytest.mark.parametrize(("rope", "rotated"), [(ROPE, 16), (Rope(partial=True), 40), (Rope(partial=True), 7)])
def test_a_rotated_part_that_transformers_cannot_express(rope: Rope, rotated: int) -> None:
    metadata = {"llama.rope.dimension_count": GgufValue(GGUFValueType.UINT32, rotated)}
    with pytest.raises(UnreadableRopeError, match=f"rotates {rotated} of the 32"):
        rope_parameters(metadata, rope, "llama", {}, 32, 256)


def test_divisors_of_another_number_are_refused() -> None:
    with pytest.raises(UnreadableRopeError, match=r"rope_freqs\.weight has the shape \[15\], where \[16\]"):
        rope_parameters({}, ROPE, "llama", {FREQUENCIES: np.ones(15, np.float32)}, 32, 256)


def test_partly_rotated_heads_are_refused() -> None:
    config = config_with(None)
    config.rope_parameters["partial_rotary_factor"] = 0.5
    with pytest.raises(RopeScalingError, match=r"partial_rotary_factor is 0\.5"):
        rope_metadata(config, ROPE, "llama")


@pytest.mark.parametrize(
    ("name", "value"), [("rope_theta", "a"), ("factor", 0), ("factor", "2"), ("rope_theta", float("inf"))]
)
def test_numbers_that_are_none_are_refused(name: str, value: object) -> None:
    config = config_with(SCALINGS["linear"])
    config.rope_parameters[name] = value
    with pytest.raises(RopeScalingError, match=f"{name} is {value!r}, where a positive number"):
        rope_metadata(config, ROPE, "llama")


@pytest.mark.parametrize(("kind", "divided"), [("other", False), ("yarn", True)])
def test_scaling_in_gguf_that_transformers_lacks_is_refused(kind: str, divided: bool, tmp_path: Path) -> None:
    metadata, _, _ = rope_metadata(config_with(YARN), ROPE, "llama")
    key = "llama.rope.scaling.type"
    metadata[key] = GgufValue(metadata[key].type, kind)
    with pytest.raises(UnreadableRopeError, match=kind):
        rope_parameters(
            metadata,
            ROPE,
            "llama",
            {"rope_freqs.weight": np.ones(16, np.float32)} if divided else {},
            32,
            256,
        )


def test_keys_that_llama_cpp_does_not_read_change_nothing() -> None:
    """llama.cpp's loader of "llama" knows no yarn_beta_*: such a file means the usual ramp."""
    metadata, _, _ = rope_metadata(config_with(YARN), ROPE, "llama")
    plain = rope_parameters(metadata, ROPE, "llama", {}, 32, 256)
    factor = metadata["llama.rope.scaling.factor"]
    metadata["llama.rope.scaling.yarn_beta_fast"] = GgufValue(factor.type, 2.0)
    assert rope_parameters(metadata, ROPE, "llama", {}, 32, 256) == plain
