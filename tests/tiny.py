"""Tiny random models in the layouts that people have on disk, for tests.

Weights have standard deviation 0.15 and norms are perturbed: with the default initialization every
token is about equally likely, and a wrong permutation would pass any bound on probabilities.
"""

import json
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT = [
    "The harbour was quiet that morning, and 27 boats lay at the wall.",
    "“Où est la gare ?” demanda-t-elle; nobody answered. Straße, naïve, coöperate.",
    "def area(width, height):\n    return width * height  # square metres\n",
    "数字は 3.14 と 42 です。 Привет, мир! مرحبا 🙂🙂",
    "It's what they'd said: we'll see, won't we? I'm sure you've read 1,000,000 words.",
] * 3


def llama_config(**changes: object) -> dict:
    """A Llama config in the older spelling that published checkpoints have (`rope_theta`, `rope_scaling`)."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    return config | changes


def llama_tensors(config: dict, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the names of a published Llama or Mistral checkpoint, float32."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) * 0.15

    def norm(size: int) -> torch.Tensor:
        return 1 + torch.randn(size, generator=generator) * 0.2

    hidden, ff = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    tensors = {"model.embed_tokens.weight": matrix(config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        block = f"model.layers.{i}."
        tensors |= {
            block + "input_layernorm.weight": norm(hidden),
            block + "self_attn.q_proj.weight": matrix(queries, hidden),
            block + "self_attn.k_proj.weight": matrix(keys, hidden),
            block + "self_attn.v_proj.weight": matrix(keys, hidden),
            block + "self_attn.o_proj.weight": matrix(hidden, queries),
            block + "post_attention_layernorm.weight": norm(hidden),
            block + "mlp.gate_proj.weight": matrix(ff, hidden),
            block + "mlp.up_proj.weight": matrix(ff, hidden),
            block + "mlp.down_proj.weight": matrix(hidden, ff),
        }
        if config.get("attention_bias"):
            for name, size in (("q", queries), ("k", keys), ("v", keys), ("o", hidden)):
                bias = torch.randn(size, generator=generator) * 0.15
                tensors[block + f"self_attn.{name}_proj.bias"] = bias
    tensors["model.norm.weight"] = norm(hidden)
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = matrix(config["vocab_size"], hidden)
    return tensors


def write_folder(
    folder: Path,
    config: dict,
    tensors: dict[str, torch.Tensor],
    *,
    shards: int = 1,
    index: bool = True,
    tokenizer: str | None = "bpe",
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A Hugging Face folder: config, safetensors in `shards` files, tokenizer ("bpe", "spm", None)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    stored = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
    if shards == 1:
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        names = list(stored)
        where: dict[str, str] = {}
        for i in range(shards):
            file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
            part = names[i::shards]
            save_file({name: stored[name] for name in part}, folder / file, metadata={"format": "pt"})
            where |= dict.fromkeys(part, file)
        if index:
            total = sum(tensor.nbytes for tensor in stored.values())
            content = {"metadata": {"total_size": total}, "weight_map": where}
            (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    if tokenizer == "bpe":
        write_bpe(folder, config["vocab_size"])
    elif tokenizer == "spm":
        write_sentencepiece(folder, config["vocab_size"])
    return folder


def write_llama(folder: Path, *, seed: int = 0, config: dict | None = None, **options: object) -> Path:
    """`write_folder` with `llama_config(**config)` and random weights."""
    full = llama_config(**(config or {}))
    return write_folder(folder, full, llama_tensors(full, seed), **options)  # type: ignore[arg-type]


def write_bpe(folder: Path, size: int) -> None:
    """A byte-level BPE `tokenizer.json` of exactly `size` tokens (GPT-2's splitting), BOS first."""
    from tokenizers import processors

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|pad|>", "<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    missing = size - tokenizer.get_vocab_size()
    tokenizer.add_tokens([f"<|unused{i}|>" for i in range(missing)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_tokenizer_config(folder, bos="<|begin|>", eos="<|end|>", add_bos=True)


def write_sentencepiece(folder: Path, size: int) -> None:
    """A SentencePiece BPE `tokenizer.model` with byte fallback, as Llama 1, 2 and Mistral ship."""
    source = folder / "spm.txt"
    source.write_text("\n".join(" ".join(TEXT).split("\n")))
    sentencepiece.SentencePieceTrainer.train(
        input=str(source),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=size,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.9995,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        hard_vocab_limit=True,
        minloglevel=2,
    )
    source.unlink()
    (folder / "tokenizer.vocab").unlink()
    write_tokenizer_config(folder, bos="<s>", eos="</s>", add_bos=True)


def write_tokenizer_config(folder: Path, *, bos: str, eos: str, add_bos: bool) -> None:
    content = {
        "bos_token": bos,
        "eos_token": eos,
        "add_bos_token": add_bos,
        "add_eos_token": False,
        "tokenizer_class": "LlamaTokenizer" if bos == "<s>" else "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(content))


def random_array(kind: str, rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """float32 [rows, columns] of a "gaussian", "laplace" or "heavy" (Student t, 3) distribution."""
    generator = np.random.default_rng(seed)
    draw = {
        "gaussian": lambda: generator.standard_normal((rows, columns)),
        "laplace": lambda: generator.laplace(size=(rows, columns)),
        "heavy": lambda: generator.standard_t(3, (rows, columns)),
    }[kind]
    return (draw() * 0.02).astype(np.float32)
