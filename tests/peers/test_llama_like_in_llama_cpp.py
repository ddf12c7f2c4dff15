"""The families that are like Llama: llama.cpp computes from our files what transformers computes.

Each case is a tiny random model; see `test_export_in_llama_cpp` for the bound. Each control leaves out or
undoes one thing that its family needs, and must break the bound, or llama.cpp must refuse the file.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import engine.export.gguf.plan as planning
from engine.api.gguf import GgufValue
from engine.architectures import architecture_of
from engine.architectures.rope import rope_order
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.export.gguf import Export, plan_export
from tests.engine.export.models import LLAMA3, YARN, all_f32, export_gguf, prompts, write_gguf
from tests.engine.export.random_models import spell_as_published, write_random
from tests.engine.streamed import streamed_log_probabilities
from tests.peers import llama
from tests.peers.compare import BOUND, COUNTED, reference

pytest.importorskip("xllamacpp")

THETA = {"rope_theta": 10000.0}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 96}
QWEN2_MOE = EXPERTS | {"shared_expert_intermediate_size": 128}
QWEN3_MOE = EXPERTS | {"norm_topk_prob": True, "head_dim": 16}
SCALES = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.1,
    "residual_multiplier": 0.6,
    "logits_scaling": 0.4,
}
YARN_RAMP = YARN | {"beta_fast": 2.0, "beta_slow": 0.5}
LINEAR = {"rope_type": "linear", "factor": 2.0}

FAMILIES: dict[str, dict] = {
    "qwen2": {},
    "qwen2_moe": QWEN2_MOE,
    "qwen3": {"head_dim": 32},
    "qwen3_moe": QWEN3_MOE,
    "olmo2": {},
    "smollm3": {"num_hidden_layers": 5},
    "granite": SCALES,
    "mixtral": {"num_local_experts": 4, "stacked": True},
}
CASES: dict[str, tuple[str, dict]] = {family: (family, changes) for family, changes in FAMILIES.items()} | {
    "qwen2, tied, yarn": ("qwen2", {"tie_word_embeddings": True, "rope_parameters": YARN | THETA}),
    "qwen2, linear": ("qwen2", {"rope_parameters": LINEAR | THETA}),
    "qwen2_moe, tied, stored stacked": (
        "qwen2_moe",
        QWEN2_MOE | {"tie_word_embeddings": True, "stacked": True},
    ),
    "qwen2_moe, no biases": ("qwen2_moe", QWEN2_MOE | {"qkv_bias": False}),
    "qwen3, tied, yarn": ("qwen3", {"tie_word_embeddings": True, "rope_parameters": YARN | THETA}),
    "qwen3_moe, tied, yarn, stored stacked": (
        "qwen3_moe",
        QWEN3_MOE
        | {"head_dim": 32, "tie_word_embeddings": True, "stacked": True, "rope_parameters": YARN | THETA},
    ),
    "olmo2, tied": ("olmo2", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "smollm3, tied, yarn, wide heads": (
        "smollm3",
        {"tie_word_embeddings": True, "head_dim": 32, "rope_parameters": YARN | THETA},
    ),
    "granite, tied, biases, llama3": (
        "granite",
        SCALES
        | {
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
            "rope_parameters": LLAMA3 | THETA,
        },
    ),
    "granite, yarn with a ramp of its own": ("granite", {"rope_parameters": YARN_RAMP | THETA}),
}


@dataclass
class Model:
    """A folder, what transformers computes from it (float64 [texts, n, vocabulary]), and its F32 file."""

    folder: Path
    expected: np.ndarray
    file: Path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    made: dict[str, Model] = {}

    def make(case: str) -> Model:
        if case not in made:
            kind, changes = CASES[case]
            folder = write_random(tmp_path_factory.mktemp("model") / "model", kind, **changes)
            made[case] = Model(folder, reference(folder, prompts()), export_gguf(folder))
        return made[case]

    return make


def difference(file: Path, expected: np.ndarray, share: float = 1.0) -> float:
    """The largest difference of llama.cpp over the counted tokens, at the best `share` of positions."""
    found = np.stack([llama.log_probabilities(file, token_ids) for token_ids in prompts()])
    differences = np.where(expected > COUNTED, np.abs(found - expected), 0)
    return float(np.quantile(differences.max(-1), share))


@pytest.mark.parametrize("case", CASES)
def test_same_probabilities_as_transformers(case: str, model: Callable[[str], Model]) -> None:
    made = model(case)
    assert difference(made.file, made.expected) < 1e-3, "only the order of sums differs"


@pytest.mark.parametrize("case", CASES)
def test_our_own_evaluation_of_folder_and_file(case: str, model: Callable[[str], Model]) -> None:
    made = model(case)
    from_folder = streamed_log_probabilities(made.folder, prompts())
    from_file = streamed_log_probabilities(made.file, prompts())
    assert np.abs(from_folder - made.expected).max() < 1e-4
    # Divisors of frequencies are float32, so one may differ in its last place.
    assert np.abs(from_file - from_folder).max() <= (1e-4 if "llama3" in case or "ramp" in case else 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_f16_and_q8_0(family: str, model: Callable[[str], Model], tmp_path: Path) -> None:
    made = model(family)
    for name in ("F16", "Q8_0"):
        with open_checkpoint(made.folder) as checkpoint:
            export = plan_export(checkpoint)
            matrices = {t.name for t in export.tensors if len(t.shape) > 1 and "ffn_gate_inp" not in t.name}
            formats = all_f32(export) | dict.fromkeys(matrices, name)
            write_gguf(checkpoint, export, tmp_path / f"{name}.gguf", formats)
    assert difference(tmp_path / "F16.gguf", made.expected) < 0.02
    # With Q8_0 llama.cpp rounds activations to 8 bits, and a router may choose another expert for that; a
    # copy in F32 has the same weights and no rounding.
    ours = streamed_log_probabilities(tmp_path / "Q8_0.gguf", prompts())
    copy = llama.dequantized_copy(tmp_path / "Q8_0.gguf", tmp_path / "copy.gguf")
    assert difference(copy, ours) < 1e-3
    assert difference(tmp_path / "Q8_0.gguf", ours, share=0.9) < 0.5


@pytest.mark.parametrize("case", CASES)
def test_older_spellings_of_the_config_give_the_same_file(
    case: str, model: Callable[[str], Model], tmp_path: Path
) -> None:
    made = model(case)
    folder = Path(shutil.copytree(made.folder, tmp_path / "model"))
    spell_as_published(folder)
    assert "rope_theta" in (folder / "config.json").read_text()
    assert export_gguf(folder).read_bytes() == made.file.read_bytes()


def drop(*names: str) -> Callable[[Export], None]:
    """Leaves out the tensors or keys whose names hold one of `names`."""

    def change(export: Export) -> None:
        before = len(export.tensors) + len(export.metadata)
        export.tensors = [t for t in export.tensors if not any(name in t.name for name in names)]
        export.metadata = {
            key: value for key, value in export.metadata.items() if not any(name in key for name in names)
        }
        assert len(export.tensors) + len(export.metadata) < before

    return change


def put(key: str, value: float) -> Callable[[Export], None]:
    def change(export: Export) -> None:
        key_here = f"{export.architecture}.{key}"
        export.metadata[key_here] = GgufValue(export.metadata[key_here].type, value)

    return change


def swap(one: str, other: str) -> Callable[[Export], None]:
    """Exchanges the weights of two tensors of a block."""

    def change(export: Export) -> None:
        names = {
            f"blk.0.{one}.weight": f"blk.0.{other}.weight",
            f"blk.0.{other}.weight": f"blk.0.{one}.weight",
        }
        export.tensors = [replace(t, name=names.get(t.name, t.name)) for t in export.tensors]

    return change


def in_pairs(*names: str) -> Callable[[Export], None]:
    """Permutes rows as a Llama's."""

    def change(export: Export) -> None:
        class Heads:
            head_dim = export.metadata[f"{export.architecture}.attention.key_length"].value

        export.tensors = [
            replace(t, order=rope_order(Heads, t.shape[0])) if any(name in t.name for name in names) else t
            for t in export.tensors
        ]

    return change


def in_halves(export: Export) -> None:
    export.tensors = [replace(tensor, order=None) for tensor in export.tensors]


def reverse_experts(export: Export) -> None:
    export.tensors = [
        replace(tensor, sources=tensor.sources[::-1]) if tensor.name == "blk.0.ffn_up_exps.weight" else tensor
        for tensor in export.tensors
    ]


CONTROLS: list[tuple[str, Callable[[Export], None]]] = [
    ("qwen2", in_pairs("attn_q", "attn_k")),
    ("qwen2", in_pairs("attn_q.bias", "attn_k.bias")),
    ("qwen2", drop("attn_q.bias")),
    ("qwen2, tied, yarn", drop("rope.scaling.type")),
    ("qwen2, linear", drop("rope.scaling.factor")),
    ("qwen2_moe", in_pairs("attn_q", "attn_k")),
    ("qwen2_moe", drop("attn_k.bias")),
    ("qwen2_moe", reverse_experts),
    ("qwen2_moe", swap("ffn_gate_exps", "ffn_up_exps")),
    ("qwen2_moe", swap("ffn_gate_shexp", "ffn_up_shexp")),
    ("qwen2_moe", put("expert_used_count", 1)),
    ("qwen2_moe", drop("expert_feed_forward_length")),
    ("qwen2_moe", drop("expert_shared_feed_forward_length")),
    ("qwen2_moe, tied, stored stacked", swap("ffn_gate_exps", "ffn_up_exps")),
    ("qwen2_moe, tied, stored stacked", drop("output.weight")),
    ("qwen3", in_pairs("attn_q.", "attn_k.")),
    ("qwen3", swap("attn_q_norm", "attn_k_norm")),
    ("qwen3", drop("attention.key_length", "attention.value_length")),
    ("qwen3, tied, yarn", drop("rope.scaling.type")),
    ("qwen3_moe", in_pairs("attn_q.", "attn_k.")),
    ("qwen3_moe", swap("attn_q_norm", "attn_k_norm")),
    ("qwen3_moe", reverse_experts),
    ("qwen3_moe", put("expert_used_count", 1)),
    ("qwen3_moe", drop("expert_feed_forward_length")),
    ("olmo2", in_pairs("attn_q.", "attn_k.")),
    ("olmo2", swap("post_attention_norm", "post_ffw_norm")),
    ("olmo2, tied", swap("attn_q_norm", "attn_k_norm")),
    ("olmo2, tied", drop("output.weight")),
    ("smollm3", in_halves),
    ("granite", in_halves),
    ("granite", drop("embedding_scale")),
    ("granite", drop("attention.scale")),
    ("granite", drop("residual_scale")),
    ("granite", put("logit_scale", 1.0)),
    ("granite, tied, biases, llama3", drop("rope_freqs")),
    ("granite, tied, biases, llama3", drop("ffn_down.bias")),
    ("mixtral", swap("ffn_gate_exps", "ffn_up_exps")),
]


@pytest.mark.parametrize("control", range(len(CONTROLS)), ids=lambda i: f"{i} {CONTROLS[i][0]}")
def test_undoing_what_a_family_needs_breaks_the_bound(
    control: int, model: Callable[[str], Model], tmp_path: Path
) -> None:
    case, change = CONTROLS[control]
    made = model(case)
    try:
        largest = difference(export_gguf(made.folder, change, path=tmp_path / "model.gguf"), made.expected)
    except llama.LlamaError:
        return
    assert largest > BOUND


REFUSED = {
    "norm_topk_prob true": ("qwen2_moe", QWEN2_MOE | {"norm_topk_prob": True}),
    "norm_topk_prob false": ("qwen3_moe", QWEN3_MOE | {"norm_topk_prob": False}),
    "rope in all blocks": ("smollm3", {"num_hidden_layers": 4, "no_rope_layers": [1] * 4}),
    "rope in fewer blocks": ("smollm3", {"no_rope_layers": [1, 0]}),
    "gelu": ("olmo2", {"hidden_act": "gelu"}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_would_differ(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, changes = REFUSED[case]
    folder = write_random(tmp_path / "model", kind, **changes)
    with open_checkpoint(folder) as checkpoint, pytest.raises(planning.UnsupportedModelError):
        plan_export(checkpoint)

    def permissive(checkpoint: Checkpoint) -> object:
        return replace(architecture_of(checkpoint), refusal=lambda config: None)

    monkeypatch.setattr(planning, "architecture_of", permissive)
    assert difference(export_gguf(folder), reference(folder, prompts())) > BOUND
