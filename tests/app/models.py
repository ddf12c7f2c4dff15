"""Models for tests of the window, in files and in memory."""

import struct
from pathlib import Path

import gguf
import numpy as np

ROLES = {
    "attn_q": (32, 256),
    "attn_k": (32, 256),
    "attn_v": (32, 256),
    "attn_output": (32, 256),
    "ffn_gate": (32, 256),
    "ffn_up": (32, 256),
    "ffn_down": (32, 96),
    "attn_norm": (256,),
    "ffn_norm": (256,),
}


def write_wide_gguf(path: Path, blocks: int, tokens: int = 0) -> Path:
    """A GGUF of `blocks` blocks with nine small tensors each: nothing runs it, but it quantizes.

    With `tokens` it has so many, merges, and a chat template of 30,000 letters.
    """
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(blocks)
    if tokens:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list([f"token {number}" for number in range(tokens)])
        writer.add_token_merges([f"a{number} b" for number in range(tokens)])
        letters = "<\uff5c\u2581\u6f22\ud55c\u0441\u0627\u0939\u0e44\U0001f600\uff5c>"  # of many fonts
        writer.add_chat_template(letters + "{% if messages %}{{ messages[0] }}{% endif %}\n" * 700)
    random = np.random.default_rng(0)
    matrices = {name: random.normal(0, 0.02, shape).astype(np.float16) for name, shape in ROLES.items()}
    writer.add_tensor("token_embd.weight", matrices["attn_q"])
    for block in range(blocks):
        for name, values in matrices.items():
            kept = values.astype(np.float32) if values.ndim == 1 else values
            writer.add_tensor(f"blk.{block}.{name}.weight", kept)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_matrix(path: Path, blocks: int) -> Path:
    """An importance matrix for that model, in llama.cpp's older format."""
    random = np.random.default_rng(1)
    shapes = {name: shape[1] for name, shape in ROLES.items() if len(shape) == 2}
    parts = [struct.pack("<i", blocks * len(shapes))]
    for block in range(blocks):
        for name, columns in shapes.items():
            key = f"blk.{block}.{name}.weight".encode()
            values = random.gamma(1, 1, columns).astype("<f4").tobytes()
            parts += [struct.pack("<i", len(key)), key, struct.pack("<ii", 4, columns), values]
    path.write_bytes(b"".join([*parts, struct.pack("<ii", 4, 5), b"texts"]))
    return path
