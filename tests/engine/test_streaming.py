"""Streaming against transformers' whole model in memory: the same logits, in bounded memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from engine.architectures import transformers_view
from engine.checkpoint import open_checkpoint
from engine.checkpoint.errors import MissingTensorError, TensorShapeError, UnknownTensorError
from engine.streaming import StreamedModel, UnstreamableModelError, stream
from tests.tiny import llama_config, llama_tensors, write_folder, write_llama

ROOT = Path(__file__).parents[2]
VOCABULARY = 512
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
ROPE_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS = {  # what each shows that the others do not
    "qwen2": SIZES,  # biases
    "olmo2": SIZES,  # norms behind the sublayers, norms of q and k
    "gemma2": SIZES
    | {"sliding_window": 16, "head_dim": 16},  # softcapping, scaled embedding, two kinds of mask
    "gemma3_text": SIZES | {"sliding_window": 16, "head_dim": 16, "sliding_window_pattern": 2},  # two ropes
    "phi3": SIZES,  # q, k and v in one
    "cohere2": SIZES,  # scaled logits, norm and attention in parallel
    "gpt2": {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128},
    "bloom": {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "n_layer": 3,
        "n_head": 4,
    },  # tuples; a batch's alibi
    "mixtral": SIZES | EXPERTS,  # experts stored one by one, run as one
    "qwen3_moe": SIZES | EXPERTS,
}


class Held:
    """Hidden states in memory; `done` counts what was computed."""

    def __init__(self) -> None:
        self.states: dict[int, tuple[int, torch.Tensor]] = {}
        self.done: list[tuple[int, int]] = []

    def step(self, batch: int) -> int:
        return self.states[batch][0] if batch in self.states else -1

    def get(self, batch: int) -> torch.Tensor:
        return self.states[batch][1]

    def put(self, batch: int, step: int, states: torch.Tensor) -> None:
        self.states[batch] = step, states
        self.done.append((step, batch))


def nothing(block: int, windows: int) -> None:
    pass


def streamed(model: StreamedModel, tokens: np.ndarray) -> torch.Tensor:
    """Hidden states behind the last block: float32 [windows, length, width]."""
    held = Held()
    stream(model, tokens, held, range(len(list(model.batches(*tokens.shape)))), nothing)
    return torch.cat([held.get(batch) for batch in range(len(held.states))])


def windows(count: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, VOCABULARY, (count, length))


def save_model(folder: Path, kind: str, **settings: object) -> Path:
    """A folder as transformers writes it, with weights that make a difference."""
    config = AutoConfig.for_model(kind, **settings)
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = noise * 0.15 if parameter.ndim > 1 else parameter.data + noise * 0.2
    model.save_pretrained(folder)
    return folder


def whole_logits(folder: Path, tokens: np.ndarray) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(input_ids=torch.from_numpy(tokens), use_cache=False).logits


def streamed_logits(folder: Path, tokens: np.ndarray) -> torch.Tensor:
    with open_checkpoint(folder) as checkpoint:
        model = StreamedModel(transformers_view(checkpoint), str(folder))
        hidden = streamed(model, tokens)
        with model.head():
            return torch.stack([model.logits(states) for states in hidden])


def difference(folder: Path, tokens: np.ndarray) -> float:
    whole = whole_logits(folder, tokens)
    assert whole.std() > 0.05, "logits that say nothing agree with anything"
    return float((streamed_logits(folder, tokens) - whole).abs().max())


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"tie_word_embeddings": True},
        {"attention_bias": True},
        {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 16},
        {"rope_scaling": ROPE_LLAMA3, "rope_theta": 500000.0},
        {"num_hidden_layers": 1},
    ],
    ids=["untied", "tied", "biases", "sliding window", "llama3 rope", "one block"],
)
def test_published_llama_folders_give_the_logits_of_the_whole_model(tmp_path, config):
    folder = write_llama(tmp_path / "model", config=config, tokenizer=None, shards=2)
    assert difference(folder, windows(3, 100)) < 1e-5


@pytest.mark.parametrize("kind", MODELS)
def test_other_architectures_give_the_logits_of_the_whole_model(tmp_path, kind):
    folder = save_model(tmp_path / "model", kind, **MODELS[kind])
    # 34 windows of 60 fill a batch; the 35th goes alone.
    assert difference(folder, windows(35, 60)) < 1e-5


def test_the_bound_tells_a_wrong_forward_pass(tmp_path):
    folder = write_llama(tmp_path / "model", tokenizer=None)
    tokens = windows(2, 100)
    right = streamed_logits(folder, tokens)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": 20000.0}))
    assert (streamed_logits(folder, tokens) - right).abs().max() > 0.1


def test_names_without_the_model_s_prefix_and_of_a_text_part(tmp_path):
    tokens = windows(2, 50)
    gpt2 = save_model(tmp_path / "gpt2", "gpt2", **MODELS["gpt2"])
    expected = streamed_logits(gpt2, tokens)
    stored = load_file(gpt2 / "model.safetensors")
    short = {name.removeprefix("transformer."): tensor for name, tensor in stored.items()}
    assert short.keys() != stored.keys()
    save_file(short, gpt2 / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(streamed_logits(gpt2, tokens), expected)

    config = llama_config()
    tensors = llama_tensors(config)
    plain = write_folder(tmp_path / "plain", config, tensors, tokenizer=None)
    part = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
    part_folder = write_folder(tmp_path / "part", config, part, tokenizer=None)
    assert torch.equal(streamed_logits(part_folder, tokens), streamed_logits(plain, tokens))


def test_a_tied_config_with_an_own_output_matrix_uses_it(tmp_path):
    """As transformers does: the config is wrong then, not the weights."""
    config = llama_config(tie_word_embeddings=True)
    tensors = llama_tensors(config | {"tie_word_embeddings": False})
    folder = write_folder(tmp_path / "model", config, tensors, tokenizer=None)
    assert difference(folder, windows(2, 50)) < 1e-5


def test_a_block_is_in_memory_only_while_its_context_lasts(tmp_path):
    folder = write_llama(tmp_path / "model", tokenizer=None)
    with open_checkpoint(folder) as checkpoint:
        model = StreamedModel(transformers_view(checkpoint), "model")
        with model.embedding():
            before = model.embed(windows(2, 30))
        hidden = before.clone()
        seen = []
        with model.block(0) as block:
            assert {p.device.type for p in block.parameters()} == {"cpu"}
            block.mlp.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
            result = model.run(0, hidden)
        assert seen == [(2, 30, 64)]
        assert torch.equal(hidden, before)
        assert not torch.equal(result, before)
        assert {p.device.type for p in block.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        (
            "gemma3n_text",
            SIZES
            | {
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
                "num_kv_shared_layers": 0,
                "hidden_size_per_layer_input": 16,
                "vocab_size_per_layer_input": VOCABULARY,
                "activation_sparsity_pattern": [0.0, 0.0, 0.0],
            },
            "more than one array",
        ),
        ("bert", SIZES, "looks at following tokens"),
    ],
)
def test_what_is_no_plain_chain_of_causal_blocks_is_refused(tmp_path, kind, settings, reason):
    folder = save_model(tmp_path / "model", kind, **settings)
    with pytest.raises(UnstreamableModelError, match=reason):
        streamed_logits(folder, windows(2, 50))


def test_a_model_that_predicts_no_next_token_is_refused(tmp_path):
    config = llama_config(model_type="vit", architectures=["ViTModel"])
    folder = write_folder(tmp_path / "model", config, llama_tensors(config), tokenizer=None)
    with pytest.raises(UnstreamableModelError, match="vit is not a text model that predicts the next token"):
        streamed_logits(folder, windows(1, 50))


def test_a_configuration_that_transformers_cannot_build_is_one_sentence(tmp_path):
    folder = write_llama(
        tmp_path / "model", config={"rope_scaling": {"rope_type": "nope", "factor": 2}}, tokenizer=None
    )
    with pytest.raises(UnstreamableModelError, match=r"cannot build the model .* \(KeyError: 'nope'\)"):
        streamed_logits(folder, windows(1, 50))


def test_a_preference_for_a_gpu_s_attention_does_not_matter(tmp_path):
    tokens = windows(1, 50)
    plain = write_llama(tmp_path / "plain", tokenizer=None)
    other = write_llama(
        tmp_path / "other", config={"attn_implementation": "flash_attention_2"}, tokenizer=None
    )
    assert torch.equal(streamed_logits(other, tokens), streamed_logits(plain, tokens))


def test_missing_tensors_are_named_before_anything_runs(tmp_path):
    config = llama_config()
    tensors = llama_tensors(config)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    folder = write_folder(tmp_path / "model", config, tensors, tokenizer=None)
    with (
        open_checkpoint(folder) as checkpoint,
        pytest.raises(MissingTensorError, match=r"lacks the tensor model\.layers\.1\.mlp\.up_proj\.weight, "),
    ):
        StreamedModel(transformers_view(checkpoint), "model")


@pytest.mark.parametrize(
    ("blocks", "error", "words"),
    [
        (1, UnknownTensorError, r"stores 2 blocks where its config\.json states 1 "),
        (10**7, MissingTensorError, r"has 21 tensors, too few for the 10,000,000 blocks"),
    ],
)
def test_blocks_that_the_config_does_not_count_are_refused_at_once(tmp_path, blocks, error, words):
    tensors = llama_tensors(llama_config())
    config = llama_config(num_hidden_layers=blocks)
    folder = write_folder(tmp_path / "model", config, tensors, tokenizer=None)
    with open_checkpoint(folder) as checkpoint, pytest.raises(error, match=words):
        transformers_view(checkpoint)


def test_what_transformers_leaves_out_may_be_stored(tmp_path):
    """Frequencies of old checkpoints, the tied head again, and blocks that predict further tokens."""
    tokens = windows(1, 50)
    config = llama_config(num_hidden_layers=3, tie_word_embeddings=True)
    tensors = llama_tensors(config)
    extra = {name: tensor for name, tensor in tensors.items() if "layers.2." in name}
    plain = {name: tensor for name, tensor in tensors.items() if name not in extra}
    config["num_hidden_layers"] = 2
    expected = streamed_logits(write_folder(tmp_path / "plain", config, plain, tokenizer=None), tokens)
    extra["lm_head.weight"] = plain["model.embed_tokens.weight"].clone()
    extra["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    config["num_nextn_predict_layers"] = 1
    folder = write_folder(tmp_path / "more", config, plain | extra, tokenizer=None)
    assert torch.equal(streamed_logits(folder, tokens), expected)


def test_rope_settings_without_usable_frequencies(tmp_path):
    folder = write_llama(tmp_path / "model", config={"rope_theta": 0}, tokenizer=None)
    with pytest.raises(UnstreamableModelError, match=r"no usable model\.rotary_emb\.inv_freq"):
        streamed_logits(folder, windows(1, 50))


def test_a_shape_that_the_config_contradicts_is_named(tmp_path):
    config = llama_config()
    tensors = llama_tensors(config)
    folder = write_folder(tmp_path / "model", config | {"intermediate_size": 128}, tensors, tokenizer=None)
    with pytest.raises(
        TensorShapeError, match=r"mlp\.\w+_proj\.weight has the shape \[.*\] where the config"
    ):
        streamed_logits(folder, windows(1, 50))


BOUNDED = """
import resource, sys
from pathlib import Path
import torch, numpy as np
from transformers.models.llama import modeling_llama
from engine.architectures import transformers_view
from engine.checkpoint import open_checkpoint
from engine.streaming import StreamedModel
from tests.engine.test_streaming import streamed

torch.set_num_threads(2)
torch.randn(512, 512) @ torch.randn(512, 512)  # starts the threads
used = next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmData"))
room = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_DATA, (used + room, used + room))
try:
    np.ones(room + (16 << 20), np.uint8)
    sys.exit("the limit does not bind")
except MemoryError:
    pass
with open_checkpoint(Path(sys.argv[1])) as checkpoint:
    model = StreamedModel(transformers_view(checkpoint), "model")
    hidden = streamed(model, np.full((2, 128), 7))
    with model.head():
        print(model.logits(hidden[1]).abs().max().item())
"""


def test_memory_is_bounded_by_a_block_not_by_the_model(tmp_path):
    """24 blocks of 22 MiB in float32 and 32 MiB of embedding run in 120 MiB: below a quarter of the model."""
    config = llama_config(
        hidden_size=512, intermediate_size=3072, num_hidden_layers=24, num_attention_heads=8,
        num_key_value_heads=8, head_dim=64, vocab_size=16384, tie_word_embeddings=True,
    )  # fmt: skip
    folder = write_zeros(tmp_path / "model", config)
    room = 120 << 20
    parameters = sum(np.prod(shape) for shape in shapes_of(config).values())
    assert 4 * parameters > 4 * room
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, str(folder), str(room)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == 0


def shapes_of(config: dict) -> dict[str, list[int]]:
    small = llama_tensors(config | {"num_hidden_layers": 1, "vocab_size": 1})
    shapes = {}
    for name, tensor in small.items():
        if name == "model.embed_tokens.weight":
            shapes[name] = [config["vocab_size"], config["hidden_size"]]
        elif "layers.0." in name:
            for i in range(config["num_hidden_layers"]):
                shapes[name.replace("layers.0.", f"layers.{i}.")] = list(tensor.shape)
        else:
            shapes[name] = list(tensor.shape)
    return shapes


def write_zeros(folder: Path, config: dict) -> Path:
    """A folder whose weights are all zero: a sparse file, written in no time."""
    header, end = {}, 0
    for name, shape in shapes_of(config).items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return folder
