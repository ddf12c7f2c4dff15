"""llama.cpp itself, from the `xllamacpp` wheel: the judge of the files that we write.

Reaches the C API by ctypes. Parameter structs are passed by value; they are declared larger than they
are (only the first fields are named), which the calling conventions of x86-64 and AArch64 allow.
Fits the version that the extra `test` pins.
"""

import ctypes as c
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import gguf
import numpy as np
import pytest

F32, F16 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16
WINDOW = 512


class _ModelParameters(c.Structure):
    _fields_ = (("bytes", c.c_ubyte * 1024),)


class _ContextParameters(c.Structure):
    _fields_ = (
        ("n_ctx", c.c_uint32),
        ("n_batch", c.c_uint32),
        ("n_ubatch", c.c_uint32),
        ("sequences_to_attention", c.c_uint32 * 10),
        ("flash_attention", c.c_int32),
        ("rope_to_callbacks", c.c_uint32 * 12),
        ("type_k", c.c_int32),
        ("type_v", c.c_int32),
        ("rest", c.c_ubyte * 1024),
    )


class _Batch(c.Structure):
    _fields_ = (
        ("n_tokens", c.c_int32),
        ("token", c.POINTER(c.c_int32)),
        ("embd", c.c_void_p),
        ("pos", c.POINTER(c.c_int32)),
        ("n_seq_id", c.POINTER(c.c_int32)),
        ("seq_id", c.POINTER(c.POINTER(c.c_int32))),
        ("logits", c.POINTER(c.c_int8)),
    )


_FUNCTIONS = {
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [c.c_void_p, c.c_void_p]),
    "llama_model_default_params": (_ModelParameters, []),
    "llama_context_default_params": (_ContextParameters, []),
    "llama_model_load_from_file": (c.c_void_p, [c.c_char_p, _ModelParameters]),
    "llama_model_free": (None, [c.c_void_p]),
    "llama_init_from_model": (c.c_void_p, [c.c_void_p, _ContextParameters]),
    "llama_free": (None, [c.c_void_p]),
    "llama_set_n_threads": (None, [c.c_void_p, c.c_int32, c.c_int32]),
    "llama_get_memory": (c.c_void_p, [c.c_void_p]),
    "llama_memory_clear": (None, [c.c_void_p, c.c_bool]),
    "llama_batch_init": (_Batch, [c.c_int32, c.c_int32, c.c_int32]),
    "llama_batch_free": (None, [_Batch]),
    "llama_decode": (c.c_int32, [c.c_void_p, _Batch]),
    "llama_get_logits_ith": (c.POINTER(c.c_float), [c.c_void_p, c.c_int32]),
    "llama_model_get_vocab": (c.c_void_p, [c.c_void_p]),
    "llama_vocab_n_tokens": (c.c_int32, [c.c_void_p]),
    "llama_vocab_is_eog": (c.c_bool, [c.c_void_p, c.c_int32]),
    "llama_vocab_bos": (c.c_int32, [c.c_void_p]),
    "llama_vocab_get_add_bos": (c.c_bool, [c.c_void_p]),
    "llama_tokenize": (
        c.c_int32,
        [c.c_void_p, c.c_char_p, c.c_int32, c.POINTER(c.c_int32), c.c_int32, c.c_bool, c.c_bool],
    ),
}

_messages: list[str] = []


@c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)
def _keep(level: int, text: bytes, data: None) -> None:
    _messages.append(text.decode(errors="replace"))


class LlamaError(Exception):
    """llama.cpp refused a file; the text ends with what it logged last."""


@cache
def _library() -> c.CDLL:
    """Skips the test where the wheel is not installed."""
    xllamacpp = pytest.importorskip("xllamacpp")
    library = c.CDLL(str(Path(xllamacpp.__path__[0]) / "xllamacpp.abi3.so"))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.llama_log_set(c.cast(_keep, c.c_void_p), None)
    library.llama_backend_init()
    return library


@contextmanager
def _model(path: Path) -> Iterator[int]:
    library = _library()
    _messages.clear()
    model = library.llama_model_load_from_file(str(path).encode(), library.llama_model_default_params())
    if not model:
        raise LlamaError(f"llama.cpp cannot load {path}: {''.join(_messages[-6:])}")
    try:
        yield model
    finally:
        library.llama_model_free(model)


@contextmanager
def _context(model: int, tokens: int, *, exact: bool = False) -> Iterator[int]:
    """As llama.cpp runs by default, on two threads.

    `exact` keeps keys, values and attention in float32, not float16, on one thread: for single prompts of
    tiny models, where threads that wait for each other take most of the time.
    """
    library = _library()
    parameters = library.llama_context_default_params()
    fields = ("n_ctx", "n_batch", "n_ubatch", "flash_attention", "type_k", "type_v")
    defaults = [getattr(parameters, field) for field in fields]
    assert defaults == [512, 2048, 512, -1, F16, F16], "the struct has changed with the version of xllamacpp"
    parameters.n_ctx = parameters.n_batch = max(tokens, WINDOW)
    if exact:
        parameters.type_k = parameters.type_v = F32
        parameters.flash_attention = 0
    context = library.llama_init_from_model(model, parameters)
    if not context:
        raise LlamaError(f"llama.cpp cannot make a context: {''.join(_messages[-6:])}")
    threads = 1 if exact else 2
    library.llama_set_n_threads(context, threads, threads)
    try:
        yield context
    finally:
        library.llama_free(context)


def _decode(context: int, token_ids: list[int], first: int, vocabulary: int) -> np.ndarray:
    """float32 [n - first, vocabulary]: log-probabilities of what follows each token from `first` on."""
    library = _library()
    n = len(token_ids)
    batch = library.llama_batch_init(n, 0, 1)
    batch.n_tokens = n
    for i, token in enumerate(token_ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i] = int(token), i, 1
        batch.seq_id[i][0], batch.logits[i] = 0, i >= first
    library.llama_memory_clear(library.llama_get_memory(context), True)
    try:
        if library.llama_decode(context, batch):
            raise LlamaError(f"llama.cpp cannot decode: {''.join(_messages[-6:])}")
    finally:
        library.llama_batch_free(batch)
    result = np.empty((n - first, vocabulary), np.float32)
    for i in range(first, n):
        logits = np.ctypeslib.as_array(library.llama_get_logits_ith(context, i), (vocabulary,))
        logits = logits.astype(np.float64) - logits.max()
        result[i - first] = logits - np.log(np.exp(logits).sum())
    return result


def _tokenize(model: int, text: str, *, special: bool, parse: bool = False) -> list[int]:
    """`special` adds BOS and EOS as the file says; `parse` reads special tokens in the text as such."""
    library = _library()
    data = text.encode()
    buffer = (c.c_int32 * (len(data) + 8))()
    vocabulary = library.llama_model_get_vocab(model)
    count = library.llama_tokenize(vocabulary, data, len(data), buffer, len(buffer), special, parse)
    assert count >= 0, "the buffer has room for a token a byte"
    return list(buffer[:count])


def log_probabilities(path: Path, token_ids: list[int]) -> np.ndarray:
    """float32 [n, vocabulary]: row i is log p(next token | tokens 0..i).

    Nothing is added to the tokens. Attention runs in float32, so for an F32 file only the order of sums
    differs from transformers (about 1e-5).
    """
    with _model(path) as model, _context(model, len(token_ids), exact=True) as context:
        library = _library()
        return _decode(
            context, token_ids, 0, library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
        )


def scored_windows(
    path: Path, text: str, windows: int | None = None
) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Of each window, as llama-perplexity cuts them: log-probabilities, float32 [255, vocabulary], targets.

    Windows of 512 do not overlap; the first token of each is replaced by BOS where the tokenizer adds
    one; positions 256..510 predict the token behind them. `windows`: at most so many, None: all.
    """
    library = _library()
    with _model(path) as model, _context(model, WINDOW) as context:
        vocabulary = library.llama_model_get_vocab(model)
        size = library.llama_vocab_n_tokens(vocabulary)
        tokens = _tokenize(model, text, special=True)
        for i in range(min(len(tokens) // WINDOW, windows or len(tokens))):
            window = tokens[i * WINDOW : (i + 1) * WINDOW]
            targets = window[WINDOW // 2 + 1 :]
            if library.llama_vocab_get_add_bos(vocabulary):
                window[0] = library.llama_vocab_bos(vocabulary)
            yield _decode(context, window, WINDOW // 2, size)[:-1], targets


def perplexity(path: Path, text: str, windows: int | None = None) -> float:
    """exp of the mean loss by llama-perplexity's protocol; see `scored_windows`."""
    losses = [
        -rows[np.arange(len(targets)), targets].astype(np.float64)
        for rows, targets in scored_windows(path, text, windows)
    ]
    return float(np.exp(np.concatenate(losses).mean()))


def tokenize(path: Path, texts: Iterable[str], *, parse: bool = False) -> list[list[int]]:
    """Token ids of each text, no BOS or EOS added; special tokens inside it are text unless `parse`."""
    with _model(path) as model:
        return [_tokenize(model, text, special=False, parse=parse) for text in texts]


def end_tokens(path: Path) -> set[int]:
    """The tokens at which llama.cpp stops."""
    library = _library()
    with _model(path) as model:
        vocabulary = library.llama_model_get_vocab(model)
        size = library.llama_vocab_n_tokens(vocabulary)
        return {i for i in range(size) if library.llama_vocab_is_eog(vocabulary, i)}


def dequantized_copy(source: Path, target: Path) -> Path:
    """The same weights in F32: llama.cpp runs them without rounding activations to 8 bits."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields[gguf.Keys.General.ARCHITECTURE].contents())
    for key, entry in reader.fields.items():
        if key.startswith("GGUF.") or key == gguf.Keys.General.ARCHITECTURE:
            continue
        items = entry.types[1] if entry.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, entry.contents(), entry.types[0], items)
    for tensor in reader.tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, weights.reshape(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
