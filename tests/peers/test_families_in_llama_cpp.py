"""Each family: llama.cpp, and our own evaluation of the GGUF file, compute what transformers does.

llama.cpp takes its GELU from a table in float16, which differs by up to 0.003 here; without it the files in
F32 agree within 1e-4. Each control undoes one transform, or leaves out one key, and must break the bound.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.api.gguf import GgufValue
from engine.api.model import Role
from engine.checkpoint import open_checkpoint
from engine.export.gguf import Export, plan_export
from tests.engine.export.families import FACTORS, write_family
from tests.engine.export.models import export_gguf, prompts, write_gguf
from tests.engine.streamed import streamed_log_probabilities
from tests.peers import llama
from tests.peers.compare import BOUND, distance, reference

pytest.importorskip("xllamacpp")

LINEAR = {"rope_type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LONGROPE = FACTORS | {"type": "longrope"}
SHORT = {"rope_scaling": LONGROPE, "original_max_position_embeddings": 512, "max_position_embeddings": 1024}
LONG = SHORT | {"original_max_position_embeddings": 32}

CASES = {
    "gemma2": ("gemma2", {}),
    "gemma2, window": ("gemma2", {"sliding_window": 16}),
    "gemma2, yarn": ("gemma2", {"rope_scaling": YARN}),
    "gemma3": ("gemma3_text", {}),
    "gemma3, linear": ("gemma3_text", {"rope_scaling": LINEAR}),
    "gemma3, untied": ("gemma3_text", {"tie_word_embeddings": False}),
    "gemma3, windows only": ("gemma3_text", {"sliding_window_pattern": 6}),
    "phi3": ("phi3", {}),
    "phi3, short text": ("phi3", SHORT),
    "phi3, long text": ("phi3", LONG),
    "phi3, partial, tied": ("phi3", {"partial_rotary_factor": 0.5, "tie_word_embeddings": True}),
    "gpt2": ("gpt2", {"prefix": "transformer."}),
    "gpt2, square": ("gpt2", {"n_inner": 64}),
    "gpt2, untied": ("gpt2", {"tie_word_embeddings": False}),
    "gpt_neox": ("gpt_neox", {}),
    "gpt_neox, sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "gpt_neox, tied": ("gpt_neox", {"tie_word_embeddings": True}),
    "gpt_neox, linear": ("gpt_neox", {"rope_scaling": LINEAR}),
    "stablelm": ("stablelm", {}),
    "stablelm, yarn": ("stablelm", {"rope_scaling": YARN}),
    "stablelm, 12B": (
        "stablelm",
        {"use_qkv_bias": False, "qk_layernorm": True, "use_parallel_residual": True},
    ),
    "falcon": ("falcon", {}),
    "falcon, a key a query": ("falcon", {"multi_query": False}),
    "falcon, 40B": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon, 11B": (
        "falcon",
        {
            "new_decoder_architecture": True,
            "num_kv_heads": 2,
            "num_ln_in_parallel_attn": 1,
            "tie_word_embeddings": False,
        },
    ),
}

BASES = ("gemma2", "gemma3", "phi3", "gpt2", "gpt_neox", "stablelm", "falcon")

Made = Callable[[str], tuple[Path, np.ndarray]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A case's folder, and what transformers computes from it: float64 [prompts, n, vocabulary]."""
    known: dict[str, tuple[Path, np.ndarray]] = {}

    def make(case: str) -> tuple[Path, np.ndarray]:
        if case not in known:
            model_type, changes = CASES[case]
            folder = write_family(tmp_path_factory.mktemp("case") / "model", model_type, **changes)
            known[case] = folder, reference(folder, prompts(2))
        return known[case]

    return make


def by_llama_cpp(path: Path) -> np.ndarray:
    return np.stack([llama.log_probabilities(path, token_ids) for token_ids in prompts(2)])


@pytest.mark.parametrize("case", CASES)
def test_same_probabilities_from_the_file(case: str, made: Made, tmp_path: Path) -> None:
    folder, expected = made(case)
    path = export_gguf(folder, path=tmp_path / "model.gguf")
    exact = CASES[case][0] in ("phi3", "stablelm")
    found = by_llama_cpp(path)
    assert distance(found, expected) < (1e-4 if exact else 5e-3)
    assert (found.argmax(-1) == expected.argmax(-1)).mean() > 0.97, "near ties may turn round"
    for source in (path, folder) if case in BASES else (path,):
        assert distance(streamed_log_probabilities(source, prompts(2)), expected) < 2e-5


@pytest.mark.parametrize("case", BASES)
@pytest.mark.parametrize(("name", "bound"), [("F16", 0.02), ("Q8_0", 0.5)])
def test_same_probabilities_in_fewer_bits(
    case: str, name: str, bound: float, made: Made, tmp_path: Path
) -> None:
    """Q8_0 runs with activations rounded to 8 bits, too."""
    folder, expected = made(case)
    with open_checkpoint(folder) as checkpoint:
        export = plan_export(checkpoint)
        plain = (Role.NORM, Role.POSITION)
        formats = {t.name: "F32" if len(t.shape) < 2 or t.role in plain else name for t in export.tensors}
        write_gguf(checkpoint, export, tmp_path / "model.gguf", formats)
    assert 1e-4 < distance(by_llama_cpp(tmp_path / "model.gguf"), expected) < bound


Change = Callable[[Export], None]


def with_tensors(names: tuple[str, ...], **changes: object) -> Change:
    """The tensors whose names hold one of `names`, changed."""

    def change(export: Export) -> None:
        found = [tensor for tensor in export.tensors if any(name in tensor.name for name in names)]
        assert found
        for tensor in found:
            assert any(getattr(tensor, field) is not value for field, value in changes.items())
            export.tensors[export.tensors.index(tensor)] = replace(tensor, **changes)

    return change


def heads_reversed(*names: str) -> Change:
    def change(export: Export) -> None:
        for index, tensor in enumerate(export.tensors):
            if any(name in tensor.name for name in names):
                assert len(tensor.sources) > 1
                export.tensors[index] = replace(tensor, sources=tensor.sources[::-1])

    return change


def exchanged(first: str, second: str) -> Change:
    """Two tensors, each with the name of the other, in every block."""

    def change(export: Export) -> None:
        for index, tensor in enumerate(export.tensors):
            for old, new in ((first, second), (second, first)):
                if f".{old}." in f".{tensor.name}":
                    export.tensors[index] = replace(tensor, name=tensor.name.replace(old, new))
                    break

    return change


def without(key: str) -> Change:
    def change(export: Export) -> None:
        del export.metadata[key]

    return change


def with_value(key: str, value: object) -> Change:
    def change(export: Export) -> None:
        assert export.metadata[key].value != value
        export.metadata[key] = GgufValue(export.metadata[key].type, value)

    return change


CONTROLS = {
    "gemma2, stored norms": ("gemma2", with_tensors(("norm",), plus=0.0)),
    "gemma2, one stored norm": ("gemma2", with_tensors(("blk.1.post_ffw_norm",), plus=0.0)),
    "gemma2, usual cap of attention": ("gemma2", without("gemma2.attn_logit_softcapping")),
    "gemma2, usual cap of logits": ("gemma2", without("gemma2.final_logit_softcapping")),
    "gemma2, usual window": ("gemma2, window", without("gemma2.attention.sliding_window")),
    "gemma2, another period": ("gemma2, window", with_value("gemma2.attention.sliding_window_pattern", 3)),
    "gemma3, stored head norms": ("gemma3", with_tensors(("attn_q_norm", "attn_k_norm"), plus=0.0)),
    "gemma3, usual local base": ("gemma3", without("gemma3.rope.freq_base_swa")),
    "gemma3, no base": ("gemma3", without("gemma3.rope.freq_base")),
    "gemma3, usual period": ("gemma3", without("gemma3.attention.sliding_window_pattern")),
    "gemma3, no linear factor": ("gemma3, linear", without("gemma3.rope.scaling.factor")),
    "phi3, factors exchanged": ("phi3, long text", exchanged("rope_factors_long", "rope_factors_short")),
    "phi3, other factors": (
        "phi3, short text",
        with_value("phi3.rope.scaling.original_context_length", 256),
    ),
    "phi3, no factor on attention": ("phi3, long text", without("phi3.rope.scaling.attn_factor")),
    "phi3, whole heads": ("phi3, partial, tied", with_value("phi3.rope.dimension_count", 16)),
    "gpt2, output as stored": ("gpt2", with_tensors(("attn_output.weight",), transposed=False)),
    "gpt2, up as stored": ("gpt2, square", with_tensors(("ffn_up.weight",), transposed=False)),
    "gpt2, down as stored": ("gpt2, square", with_tensors(("ffn_down.weight",), transposed=False)),
    "gpt_neox, q, k, v as stored": ("gpt_neox", with_tensors(("attn_qkv.weight",), order=None)),
    "gpt_neox, biases as stored": ("gpt_neox", with_tensors(("attn_qkv.bias",), order=None)),
    "gpt_neox, sequential": ("gpt_neox", with_value("gptneox.use_parallel_residual", False)),
    "gpt_neox, whole heads": ("gpt_neox", with_value("gptneox.rope.dimension_count", 16)),
    "stablelm, whole heads": ("stablelm", with_value("stablelm.rope.dimension_count", 16)),
    "stablelm, linear": ("stablelm, yarn", without("stablelm.rope.scaling.type")),
    "stablelm, heads reversed": ("stablelm, 12B", heads_reversed("attn_q_norm", "attn_k_norm")),
    "falcon, q, k, v as stored": ("falcon, 40B", with_tensors(("attn_qkv",), order=None)),
    "falcon, a key a query, as stored": ("falcon, a key a query", with_tensors(("attn_qkv",), order=None)),
    "falcon, norms exchanged": ("falcon, 40B", exchanged("attn_norm", "attn_norm_2")),
}


@pytest.mark.parametrize("control", CONTROLS)
def test_undoing_a_transform_breaks_the_bound(control: str, made: Made, tmp_path: Path) -> None:
    case, change = CONTROLS[control]
    folder, expected = made(case)
    path = export_gguf(folder, change, path=tmp_path / "model.gguf")
    assert distance(by_llama_cpp(path), expected) > BOUND
