"""llama.cpp computes from our files what transformers computes from the Hugging Face folder.

The bound is 0.05 in log-probability over tokens above 1e-4. Correct exports stay within 1e-4, because the
judge runs attention in float32; each control undoes one transform and must break the bound.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.checkpoint import open_checkpoint
from engine.export.gguf import Export, plan_export
from tests.engine.export.families import FACTORS
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
from tests.peers import llama
from tests.peers.compare import BOUND, distance, reference

pytest.importorskip("xllamacpp")

LONGROPE = FACTORS | {"rope_type": "longrope", "original_max_position_embeddings": 32}

CASES = {
    "older spelling": {},
    "rope_parameters": {
        "without": ("rope_theta",),
        "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0},
    },
    "rope_theta": {"rope_theta": 500000.0},
    "linear": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "dynamic": {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "llama3": {"rope_scaling": LLAMA3},
    "yarn": {"rope_scaling": YARN},
    "yarn, own attention factor": {"rope_scaling": YARN | {"attention_factor": 1.5}},
    "yarn, mscale": {"rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 0.7}},
    "yarn, own ramp": {"rope_scaling": YARN | {"beta_fast": 2.0, "beta_slow": 0.5, "truncate": False}},
    "longrope": {"rope_scaling": LONGROPE},
    "tied": {"tie_word_embeddings": True},
    "attention biases": {"attention_bias": True},
    "mlp biases": {"mlp_bias": True},
    "wide heads": {"head_dim": 32},
    "sharded": {"shards": 3},
    "mistral": mistral(),
    "mistral, long window": mistral(sliding_window=128),
    "mixtral": mixtral(),
}


def difference(folder: Path, path: Path) -> tuple[float, bool]:
    """The largest difference over the counted tokens of all prompts, and whether all top tokens agree."""
    largest, same = 0.0, True
    for token_ids, expected in zip(prompts(), reference(folder, prompts()), strict=True):
        found = llama.log_probabilities(path, token_ids)
        largest = max(largest, distance(found, expected))
        same = same and bool((found.argmax(-1) == expected.argmax(-1)).all())
    return largest, same


@pytest.mark.parametrize("case", CASES)
def test_same_probabilities_as_transformers(case: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", **CASES[case])
    largest, same_top = difference(folder, export_gguf(folder))
    assert largest < 1e-3, "far inside the bound of 0.05: only the order of sums differs"
    assert same_top


def undo_order(*names: str) -> Callable[[Export], None]:
    def change(export: Export) -> None:
        tensors = [
            replace(tensor, order=None) if any(name in tensor.name for name in names) else tensor
            for tensor in export.tensors
        ]
        assert tensors != export.tensors, "the control changes nothing"
        export.tensors = tensors

    return change


def drop_key(key: str) -> Callable[[Export], None]:
    return lambda export: export.metadata.pop(key) and None


def drop_frequencies(export: Export) -> None:
    assert export.tensors.pop().name == "rope_freqs.weight"


def longer_context(export: Export) -> None:
    number = export.metadata["llama.rope.scaling.original_context_length"]
    export.metadata["llama.rope.scaling.original_context_length"] = replace(number, value=1024)


def swap_experts(export: Export) -> None:
    export.tensors = [
        replace(tensor, sources=tensor.sources[::-1]) if tensor.name == "blk.0.ffn_up_exps.weight" else tensor
        for tensor in export.tensors
    ]


CONTROLS = {
    "q in transformers' order": ("older spelling", undo_order("attn_q.weight")),
    "k in transformers' order": ("older spelling", undo_order("attn_k.weight")),
    "q and k in transformers' order": ("older spelling", undo_order("attn_q.weight", "attn_k.weight")),
    "q and k of wide heads in transformers' order": ("wide heads", undo_order("attn_q.", "attn_k.")),
    "biases of q in transformers' order": ("attention biases", undo_order("attn_q.bias")),
    "biases of k in transformers' order": ("attention biases", undo_order("attn_k.bias")),
    "no base of the frequencies": ("rope_theta", drop_key("llama.rope.freq_base")),
    "no divisors of the frequencies": ("llama3", drop_frequencies),
    "no divisors for a ramp of its own": ("yarn, own ramp", drop_frequencies),
    "no linear factor": ("linear", drop_key("llama.rope.scaling.factor")),
    "yarn as linear": ("yarn", drop_key("llama.rope.scaling.type")),
    "no attention factor": ("yarn, own attention factor", drop_key("llama.rope.scaling.attn_factor")),
    "no attention factor of longrope": ("longrope", drop_key("llama.rope.scaling.attn_factor")),
    "longrope for short texts": ("longrope", longer_context),
    "experts in another order": ("mixtral", swap_experts),
}


@pytest.mark.parametrize("control", CONTROLS)
def test_undoing_a_transform_breaks_the_bound(control: str, tmp_path: Path) -> None:
    case, change = CONTROLS[control]
    folder = write_model(tmp_path / "model", **CASES[case])
    largest, _ = difference(folder, export_gguf(folder, change))
    assert largest > BOUND


def test_texts_beyond_the_sliding_window_differ_and_the_export_says_so(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", **mistral(sliding_window=16))
    largest, _ = difference(folder, export_gguf(folder))
    assert largest > BOUND
    with open_checkpoint(folder) as checkpoint:
        notes = plan_export(checkpoint).notes
    assert any("last 16 tokens" in note and "llama.cpp attends to all" in note for note in notes)


def test_texts_within_the_sliding_window_agree(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", **mistral(sliding_window=16))
    path = export_gguf(folder)
    token_ids = prompts()[0][:16]
    found, expected = llama.log_probabilities(path, token_ids), reference(folder, [token_ids])[0]
    assert distance(found, expected) < 1e-3


def test_a_gguf_written_again_gives_the_same_probabilities(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", rope_scaling=LLAMA3, attention_bias=True)
    first = export_gguf(folder)
    with open_checkpoint(first) as checkpoint:
        write_gguf(checkpoint, plan_export(checkpoint), tmp_path / "again.gguf")
    token_ids = prompts()[0]
    again = llama.log_probabilities(tmp_path / "again.gguf", token_ids)
    assert np.array_equal(llama.log_probabilities(first, token_ids), again)


def test_quantized_file_and_its_dequantized_copy(tmp_path: Path) -> None:
    """llama.cpp takes our quantized layout, and the judge's own copy in F32 holds the same weights."""
    folder = write_model(tmp_path / "model")
    path = tmp_path / "model.gguf"
    with open_checkpoint(folder) as checkpoint:
        export = plan_export(checkpoint)
        formats = {t.name: "Q8_0" if len(t.shape) > 1 else "F32" for t in export.tensors}
        write_gguf(checkpoint, export, path, formats)
    copy = llama.dequantized_copy(path, tmp_path / "copy.gguf")
    token_ids = prompts()[0]
    quantized, dequantized = (
        llama.log_probabilities(path, token_ids),
        llama.log_probabilities(copy, token_ids),
    )
    # Q8_0 runs with activations rounded to 8 bits; on these random weights that is well below 0.5.
    assert 0 < distance(quantized, dequantized) < 0.5


def test_perplexity_follows_llama_perplexitys_protocol(tmp_path: Path) -> None:
    """Against transformers on the same windows: BOS first, the second half of 512 scored."""
    folder = write_model(tmp_path / "model", max_position_embeddings=512)
    path = export_gguf(folder)
    text = "The harbour was quiet that morning, and 27 boats lay at the wall.\n" * 120
    tokens = [1, *llama.tokenize(path, [text])[0]]
    losses = []
    for i in range(2):
        window = [1, *tokens[i * 512 + 1 : (i + 1) * 512]]
        rows = reference(folder, [window])[0, 256:511]
        losses.append(-rows[np.arange(255), window[257:]])
    # llama.cpp's default attention runs in float16: about 0.01 % here.
    assert llama.perplexity(path, text, 2) == pytest.approx(np.exp(np.mean(losses)), rel=5e-4)


def test_a_file_that_llama_cpp_refuses_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"GGUF")
    with pytest.raises(llama.LlamaError, match="cannot load"):
        llama.tokenize(tmp_path / "no.gguf", ["a"])
