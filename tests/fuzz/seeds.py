"""Small good files of every kind, from which the damaged ones are made.

`python -m tests.fuzz.seeds` writes them into the corpus, the same bytes on every machine; a test compares
them with those that are committed.
"""

import json
import struct

from gguf import GGMLQuantizationType, GGUFValueType

from tests.engine.checkpoint.samples import (
    gguf_bytes,
    info,
    pair,
    safetensors_bytes,
    string_pair,
    strings_pair,
    u32_pair,
)
from tests.fuzz import CORPUS
from tests.fuzz.mutations import archive

BLOCK = "model.layers.0."
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 4,
    "hidden_size": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 2,
    "bos_token_id": 1,
    "eos_token_id": [2],
}

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]


def safetensors(tensors: Tensors) -> bytes:
    """A safetensors file of tensors given as type, shape and bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    return safetensors_bytes(header, data)


FLOATS = struct.pack("<8f", *range(8))

PLAIN: Tensors = {
    "model.embed_tokens.weight": ("F32", (4, 2), FLOATS),
    BLOCK + "self_attn.q_proj.weight": ("BF16", (2, 2), bytes(8)),
    BLOCK + "input_layernorm.weight": ("F64", (2,), bytes(16)),
    BLOCK + "mlp.up_proj.weight": ("F16", (2, 2), bytes(8)),
    "model.norm.weight": ("F32", (), bytes(4)),
}
FP8: Tensors = {
    BLOCK + "self_attn.q_proj.weight": ("F8_E4M3", (4, 2), bytes(range(8))),
    BLOCK + "self_attn.q_proj.weight_scale_inv": ("F32", (4, 1), FLOATS[:16]),
    BLOCK + "self_attn.k_proj.weight": ("F8_E5M2", (2, 2), bytes(4)),
    BLOCK + "self_attn.k_proj.weight_scale": ("F8_E8M0", (2,), b"\x7f\x80"),
}
GPTQ: Tensors = {
    BLOCK + "self_attn.q_proj.qweight": ("I32", (1, 2), bytes(8)),
    BLOCK + "self_attn.q_proj.qzeros": ("I32", (1, 1), bytes(4)),
    BLOCK + "self_attn.q_proj.scales": ("F16", (1, 2), bytes(4)),
    BLOCK + "self_attn.q_proj.g_idx": ("I32", (8,), bytes(32)),
}
PACKED: Tensors = {
    BLOCK + "self_attn.q_proj.weight_packed": ("I32", (2, 1), bytes(8)),
    BLOCK + "self_attn.q_proj.weight_scale": ("BF16", (2, 1), bytes(4)),
}


def _safetensors() -> dict[str, bytes]:
    return {"plain": safetensors(PLAIN), "fp8": safetensors(FP8), "gptq": safetensors(GPTQ)}


def _every_value() -> list[bytes]:
    """A metadata pair of every type, and an array of each."""
    kinds = GGUFValueType
    formats = {
        kinds.UINT8: "B", kinds.INT8: "b", kinds.UINT16: "H", kinds.INT16: "h", kinds.UINT32: "I",
        kinds.INT32: "i", kinds.UINT64: "Q", kinds.INT64: "q", kinds.FLOAT32: "f", kinds.FLOAT64: "d",
        kinds.BOOL: "B",
    }  # fmt: skip
    pairs = []
    for kind, letter in formats.items():
        pairs.append(pair(f"x.{letter}{kind}", kind, struct.pack(f"<{letter}", 1)))
        array = struct.pack(f"<IQ2{letter}", kind, 2, 1, 0)
        pairs.append(pair(f"x.{letter}{kind}s", kinds.ARRAY, array))
    return pairs


def _tokenizer_pairs() -> list[bytes]:
    kinds = GGUFValueType
    types = struct.pack("<IQ4i", kinds.INT32, 4, 2, 3, 3, 4)
    scores = struct.pack("<IQ4f", kinds.FLOAT32, 4, 0, 0, -1, -2)
    return [
        string_pair("tokenizer.ggml.model", "llama"),
        strings_pair("tokenizer.ggml.tokens", ["<unk>", "<s>", "a", "ab"]),
        pair("tokenizer.ggml.token_type", kinds.ARRAY, types),
        pair("tokenizer.ggml.scores", kinds.ARRAY, scores),
        u32_pair("tokenizer.ggml.bos_token_id", 1),
    ]


def _gguf() -> dict[str, bytes]:
    quantized = [
        info("token_embd.weight", (1, 32), GGMLQuantizationType.Q4_0, 0),
        info("blk.0.attn_q.weight", (1, 32), GGMLQuantizationType.Q8_0, 32),
        info("blk.0.attn_norm.weight", (2,), GGMLQuantizationType.F32, 96),
    ]
    stated = [string_pair("general.architecture", "llama"), u32_pair("llama.block_count", 1)]
    bpe = [
        string_pair("tokenizer.ggml.model", "gpt2"),
        strings_pair("tokenizer.ggml.tokens", ["a", "b", "ab"]),
        strings_pair("tokenizer.ggml.merges", ["a b"]),
    ]
    split = [u32_pair("split.no", 0), u32_pair("split.count", 1), u32_pair("split.tensors.count", 3)]
    one = [info("output.weight", (1, 2), GGMLQuantizationType.F16, 0)]
    return {
        "values": gguf_bytes([*stated, *_every_value()], quantized, bytes(104)),
        "tokenizer": gguf_bytes([*stated, *_tokenizer_pairs()], one, bytes(4)),
        "version 2": gguf_bytes([u32_pair("general.alignment", 64), *bpe], [], version=2),
        "split": gguf_bytes([*stated, *split], quantized, bytes(104)),
    }


def _imatrix() -> dict[str, bytes]:
    infos = [info("a.in_sum2", (1, 2), 0, 0), info("a.counts", (1, 1), 0, 32)]
    data = FLOATS[:8] + bytes(24) + struct.pack("<f", 2)
    older = struct.pack("<ii1sii", 1, 1, b"a", 2, 2) + FLOATS[:8] + struct.pack("<ii1s", 2, 1, b"t")
    return {"one matrix": gguf_bytes([string_pair("general.type", "imatrix")], infos, data), "older": older}


SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def shards() -> dict[str, bytes]:
    """The two files of the model that the index speaks of."""
    names = list(PLAIN)
    return {
        shard: safetensors({name: PLAIN[name] for name in names[number::2]})
        for number, shard in enumerate(SHARDS)
    }


def _index() -> dict[str, bytes]:
    places = {name: SHARDS[number % 2] for number, name in enumerate(PLAIN)}
    return {"two shards": as_json({"metadata": {"total_size": 68}, "weight_map": places})}


def as_json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()


def _config() -> dict[str, bytes]:
    plain = CONFIG | {"tie_word_embeddings": True}
    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    weights = {"num_bits": 4, "type": "int", "group_size": 32}
    compressed = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights}}}
    hqq = {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}}
    return {
        "plain": as_json(plain),
        "multimodal": as_json({"model_type": "llava", "text_config": plain}),
        "gptq": as_json(CONFIG | {"quantization_config": gptq}),
        "compressed": as_json(CONFIG | {"quantization_config": compressed}),
        "hqq": as_json(CONFIG | {"quantization_config": hqq}),
        "fp8": as_json(CONFIG | {"quantization_config": {"weight_block_size": [1, 2]}}),
    }


def matrices(tensors: dict[str, tuple[str, str, tuple[int, int]]]) -> bytes:
    """What `torch.save` writes of a state dict of matrices: {name: (storage type, key, shape)}."""

    def word(letters: str) -> bytes:
        return b"X" + struct.pack("<I", len(letters)) + letters.encode()

    items = b""
    for name, (storage, key, (rows, columns)) in tensors.items():
        place = b"(" + word("storage") + b"ctorch\n" + storage.encode() + b"\n" + word(key) + word("cpu")
        place += b"K" + bytes([rows * columns]) + b"tQ"
        shape = b"K" + bytes([rows]) + b"K" + bytes([columns]) + b"\x86"
        stride = b"K" + bytes([columns]) + b"K\x01\x86"
        hooks = b"\x89ccollections\nOrderedDict\n)R"
        items += word(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + place + b"K\0" + shape + stride
        items += hooks + b"tR"
    state = b"}" + word("_metadata") + b"}sb"
    return b"\x80\x02ccollections\nOrderedDict\n)Rq\x00(" + items + b"u" + state + b"."


def _pytorch() -> dict[str, bytes]:
    pickled = matrices(
        {
            "model.embed_tokens.weight": ("FloatStorage", "0", (4, 2)),
            BLOCK + "mlp.up_proj.weight": ("HalfStorage", "1", (2, 2)),
        }
    )
    about = {"m/version": b"3\n", "m/byteorder": b"little"}
    storages = {"m/data/0": FLOATS, "m/data/1": bytes(8)}
    return {"two matrices": archive({"m/data.pkl": pickled} | about | storages)}


def _tokenizer() -> dict[str, bytes]:
    added = [{"id": 0, "content": "<unk>", "special": True}, {"id": 1, "content": "<s>", "special": True}]
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {}}]}
    bytewise = {
        "added_tokens": added,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        "post_processor": template,
        "model": {
            "type": "BPE",
            "vocab": {"<unk>": 0, "<s>": 1, "a": 2, "b": 3, "ab": 4},
            "merges": ["a b"],
            "ignore_merges": True,
        },
    }
    spaced = {
        "added_tokens": added,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "content": "▁"}],
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "vocab": {"<unk>": 0, "<s>": 1, "<0x0A>": 2, "▁": 3, "a": 4, "▁a": 5},
            "merges": [["▁", "a"]],
        },
    }
    return {"bytewise": as_json(bytewise), "spaced": as_json(spaced)}


def _tokenizer_config() -> dict[str, bytes]:
    content = {
        "bos_token": "<s>",
        "eos_token": {"content": "</s>"},
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {"5": {"content": "<|x|>", "special": True}},
        "chat_template": [{"name": "default", "template": "{{ x }}"}, {"name": "tools", "template": "y"}],
        "tokenizer_class": "LlamaTokenizer",
    }
    return {"whole": as_json(content)}


def _sentencepiece() -> dict[str, bytes]:
    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    pieces = b""
    for piece, score, kind in (("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3), ("a", -1, 1), ("▁a", -2, 1)):
        pieces += field(1, field(1, piece.encode()) + b"\x15" + struct.pack("<f", score) + bytes([24, kind]))
    unused = b"\xd8\x02" + b"\xff" * 9 + b"\x01"  # pad_id -1
    return {"bpe": pieces + field(2, bytes([24, 2]) + unused) + field(3, bytes([24, 1]))}


def _recipe() -> dict[str, bytes]:
    content = {
        "version": 1,
        "calibration": {"files": ["a.txt"], "windows": 16, "length": 256, "seed": 3},
        "imatrix": "m.gguf",
        "rules": [
            {"match": "down", "blocks": "0-1,3-", "format": "Q6_K", "method": "search"},
            {"match": r"(attn_[qk]|ffn_.*)\.", "format": "q5_k", "pinned": True},
            {"match": r"^blk\.0\.attn_v\.weight$", "format": "Q8_0", "params": {}},
        ],
        "default": {"format": "Q4_K"},
        "output": {"container": "gguf", "options": {}},
    }
    return {"whole": as_json(content), "smallest": b'{"default": {"format": "Q4_0"}}'}


SEEDS = {
    "safetensors": _safetensors,
    "gguf": _gguf,
    "imatrix": _imatrix,
    "index": _index,
    "config": _config,
    "pytorch": _pytorch,
    "tokenizer": _tokenizer,
    "tokenizer_config": _tokenizer_config,
    "sentencepiece": _sentencepiece,
    "recipe": _recipe,
}
"""By reader: a function that makes its files, by name."""


def committed(reader: str) -> dict[str, bytes]:
    """What is in the corpus: the seeds, and inputs that the fuzzer found."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / reader).iterdir())}


def write() -> None:
    for reader, make in SEEDS.items():
        folder = CORPUS / reader
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in make().items():
            (folder / f"seed-{name.replace(' ', '-')}").write_bytes(content)


if __name__ == "__main__":
    write()
