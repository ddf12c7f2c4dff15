"""Texts that tokenizers get wrong, and Hugging Face folders to read them with."""

import base64
import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import sentencepiece
from gguf import TokenType
from tokenizers import Tokenizer as Library

from engine.api.gguf import GgufValue
from engine.tokenizer.sentencepiece_model import read_sentencepiece

SAMPLE_MODEL = Path(__file__).parents[3] / "resources" / "sample-model"
SHARED = Path(__file__).parents[4] / "shared" / "data"

TEXTS = {
    "empty": "",
    "space": " ",
    "prose": "It's what they'd said: we'll see, won't we? I'M SURE THEY'VE read 1,000,000 words.",
    "languages": "Où est la gare ? Straße, naïve. Привет, мир! 数字は三つ。한국어 텍스트 مرحبا بالعالم שלום",
    "scripts": "नमस्ते ไทย Ελληνικά ქართული አማርኛ Tiếng Việt",
    "code": "def area(w, h):\n\treturn w * h  # m²\n\n\nif __name__ == '__main__':\n        print(2,3)\r\n",
    "numbers": "3.14159 42 007 1234567890 ½ ² Ⅳ ٣٤ 1e-9 0x1F 12:30",
    "spaces": "   lead  two   3\t\t \n \n\n\n  mixed \r\n\r\n \u00a0nbsp\u3000wide\u200azero\u200bwidth  ",
    "emoji": "🙂🙂🏽 👩\u200d👩\u200d👧 🇺🇳 ❤\ufe0f caf\u00e9 cafe\u0301",
    "marks": "...!!!???---===~~~ <<>> [[{{(())}}]] “quoted” «ainsi» a/b\\c @x #y $z%^&*_+|`",
    "special": "<s> </s> <unk> <|begin|> <|end|> <|pad|> <0x0A> ▁▁ <|im_start|>user<|im_end|>",
    "controls": "nul\x00 bell\x07 esc\x1b[0m \ufeffbom \ufffd",
}


def library_tokenizer(folder: Path) -> Library:
    """`tokenizer.json` in the `tokenizers` library, without added tokens: these are plain text to us too."""
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"] = []
    content["post_processor"] = None
    return Library.from_str(json.dumps(content))


def change_json(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(content | changes), encoding="utf-8")


def write_converted(folder: Path, source: Path, *, metaspace: bool = False) -> None:
    """The `tokenizer.json` that transformers makes of a SentencePiece model, in the older or newer style."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(source))
    scores = {model.id_to_piece(i): model.get_score(i) for i in range(len(model))}
    vocab = {piece: i for i, piece in enumerate(scores)}
    special = ["<unk>", "<s>", "</s>"]
    merges = import_module("transformers.convert_slow_tokenizer").generate_merges(vocab, scores, special)
    normalizers = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False}
            | {"normalized": False, "special": True}
            for i, text in enumerate(special)
        ],
        "normalizer": None if metaspace else {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": "always",
            "split": False,
        }
        if metaspace
        else None,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")


def opened_folder(folder: Path, vocab_size: int | None = None) -> SimpleNamespace:
    """What `load_tokenizer` needs of an opened Hugging Face folder."""
    config = {} if vocab_size is None else {"vocab_size": vocab_size}
    return SimpleNamespace(kind="huggingface", folder=folder, config=config, metadata={})


def opened_gguf(metadata: dict[str, GgufValue]) -> SimpleNamespace:
    return SimpleNamespace(kind="gguf", path=Path("model.gguf"), config=None, metadata=metadata)


def train_sentencepiece(folder: Path, **options: object) -> Path:
    """A `tokenizer.model` of 600 pieces at most, made from the texts above; `options` are the trainer's."""
    source = folder / "text.txt"
    source.write_text(
        "\n".join(text.replace("\n", " ") for text in TEXTS.values() if text) * 3, encoding="utf-8"
    )
    sentencepiece.SentencePieceTrainer.train(
        **{"input": str(source), "model_prefix": str(folder / "tokenizer"), "minloglevel": 2},
        **{"vocab_size": 600, "hard_vocab_limit": False} | options,
    )
    source.unlink()
    return folder / "tokenizer.model"


def write_unigram_json(folder: Path, source: Path) -> None:
    """The `tokenizer.json` that transformers makes of a unigram `tokenizer.model`."""
    model = read_sentencepiece(source)
    steps: list[dict] = []
    if model.charsmap:
        steps.append(
            {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(model.charsmap).decode()}
        )
    if model.remove_extra_whitespaces:
        steps.append({"type": "Strip", "strip_left": False, "strip_right": True})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"})
    scheme = "always" if model.add_dummy_prefix else "never"
    special = [i for i, kind in enumerate(model.types) if kind in (TokenType.CONTROL, TokenType.UNKNOWN)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content = {
        "version": "1.0",
        "added_tokens": [flags | {"id": i, "content": model.pieces[i]} for i in special],
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": {
            **{"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True}
        },
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "Unigram",
            "unk_id": model.special_ids["unk"],
            "vocab": [list(row) for row in zip(model.pieces, model.scores, strict=True)],
            "byte_fallback": TokenType.BYTE in model.types,
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
