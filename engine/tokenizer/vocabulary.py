"""The vocabulary of a Hugging Face folder in GGUF's terms: tokens, types, and merges or scores."""

import re
from dataclasses import dataclass, field
from typing import Any

from gguf import TokenType

from engine.api.errors import RecipeError, TokenizerError
from engine.api.wording import named, shown
from engine.tokenizer.folder import AddedToken, TokenizerFileError, TokenizerFolder
from engine.tokenizer.pretokenizers import UnknownPreTokenizerError
from engine.tokenizer.recognition import flat_steps, pre_tokenizer_wanted, recognise
from engine.tokenizer.sentencepiece_model import UNIGRAM, SentencePieceModel, read_sentencepiece
from engine.tokenizer.unigram import CharacterMap
from engine.tokenizer.unigram_vocabulary import read_unigram

BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
LOOKS_SPECIAL = re.compile(r"<\|.*\|>|<｜.*｜>|<pad>|<mask>|<2mass>|\[@BOS@\]", re.DOTALL)
ADDED_SCORE = -1000.0
MAX_TOKENS = 1 << 22  # far above any vocabulary
MAX_UNUSED = 1 << 14  # ids that may lack a token: a damaged number must not fill the memory


class UnknownModelTypeError(TokenizerError):
    """A `tokenizer.json` that holds neither byte-level BPE nor what SentencePiece makes."""


class UnfaithfulScoresError(TokenizerError):
    """Merges that cannot be told as one score a token, which is all that llama.cpp's "llama" kind has."""


class VocabularySizeError(TokenizerError):
    """A tokenizer that does not fit the model's embedding."""


@dataclass
class Vocabulary:
    """`kind` is GGUF's `tokenizer.ggml.model`: "gpt2" has `merges`, "llama" and "t5" have `scores`.

    `merges_spaces` and `charsmap` (a table that normalizes, see `engine.tokenizer.unigram`) are "t5"'s.
    `special_ids` are those that the file itself names (a `tokenizer.model` does), by "unk", "bos", ….
    """

    kind: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    space_prefix: bool = False
    merges_spaces: bool = False
    charsmap: bytes = b""
    special_ids: dict[str, int] = field(default_factory=dict)


def read_vocabulary(
    files: TokenizerFolder, vocab_size: int | None, pre_tokenizer: str | None, notes: list[str]
) -> Vocabulary:
    """The vocabulary with exactly `vocab_size` tokens (None: as many as there are), unused ones filled in.

    `pre_tokenizer` is the user's choice instead of the recognised one; `notes` takes sentences for the
    reader. Raises TokenizerError, and RecipeError for a `pre_tokenizer` that is unknown or has no use.
    """
    model = files.tokenizer_json.get("model")
    if files.tokenizer_json and (not isinstance(model, dict) or "vocab" not in model):
        raise TokenizerFileError(f"{files.tokenizer_json_path} holds no vocabulary; download the file again.")
    if isinstance(model, dict) and _splits_bytes(files.tokenizer_json):
        vocabulary = _byte_level(files, model, pre_tokenizer, notes)
    elif files.sentencepiece:
        vocabulary = _from_sentencepiece(
            files, read_sentencepiece(files.sentencepiece), str(files.sentencepiece), notes
        )
    elif isinstance(model, dict) and model.get("type") == "Unigram":
        vocabulary = _from_unigram(files, model, notes)
    elif isinstance(model, dict) and _marks_spaces(files.tokenizer_json):
        vocabulary = _from_scored_merges(files, model)
    else:
        kind = named((model.get("type") if isinstance(model, dict) else None) or "unknown")
        raise UnknownModelTypeError(
            f"{files.tokenizer_json_path} holds a tokenizer of the kind {kind} that is neither byte-level "
            "BPE nor BPE or unigram as SentencePiece makes them; Bitwright can export only these."
        )
    if pre_tokenizer is not None and vocabulary.kind != "gpt2":
        raise RecipeError(
            f"A pre-tokenizer ({shown(pre_tokenizer)}) is named for {files.folder}, but its tokenizer is "
            "SentencePiece's and has none; leave the option out."
        )
    _add_tokens(vocabulary, files.added, vocab_size, str(files.folder), notes)
    _fill_up(vocabulary, vocab_size, str(files.folder))
    return vocabulary


def _splits_bytes(tokenizer: dict[str, Any]) -> bool:
    return _is_bpe(tokenizer) and "ByteLevel" in _types(tokenizer.get("pre_tokenizer"))


def _marks_spaces(tokenizer: dict[str, Any]) -> bool:
    """Whether spaces become "▁", by the normalizer (older files) or the pre-tokenizer (newer ones)."""
    return _is_bpe(tokenizer) and (
        "Metaspace" in _types(tokenizer.get("pre_tokenizer"))
        or any(step.get("content") == "▁" for step in flat_steps(tokenizer.get("normalizer")))
    )


def _is_bpe(tokenizer: dict[str, Any]) -> bool:
    return bool(tokenizer["model"].get("type", "BPE") == "BPE")


def _types(step: object) -> list[str]:
    return [named(inner.get("type")) for inner in flat_steps(step)]


def _byte_level(
    files: TokenizerFolder, model: dict[str, Any], pre_tokenizer: str | None, notes: list[str]
) -> Vocabulary:
    source = str(files.tokenizer_json_path)
    if pre_tokenizer is not None:
        pre = pre_tokenizer_wanted(pre_tokenizer)
    else:
        step, whole = files.tokenizer_json.get("pre_tokenizer"), bool(model.get("ignore_merges"))
        pre = recognise(step, whole, source, notes)
    # NFC is left out silently: llama.cpp normalizes nothing, and text is nearly always NFC already.
    strange = [kind for kind in _types(files.tokenizer_json.get("normalizer")) if kind != "NFC"]
    if strange:
        raise UnknownPreTokenizerError(
            f"{source} changes text before it is split ({shown(', '.join(strange), 200)}), which llama.cpp "
            "cannot do."
        )
    tokens = _base_tokens(model, source)
    known = set(tokens)
    merges = []
    for left, right in _merges(model, source):
        if not {left, right, left + right} <= known or " " in left + right:
            raise TokenizerFileError(
                f"The merges in {source} hold {shown(left)} + {shown(right)}, which are no tokens."
            )
        merges.append(f"{left} {right}")
    return Vocabulary(
        "gpt2", pre_tokenizer or pre.names[0], tokens, _types_of(tokens, None, has_bytes=False), merges=merges
    )


def _from_sentencepiece(
    files: TokenizerFolder, model: SentencePieceModel, source: str, notes: list[str]
) -> Vocabulary:
    prefix = files.tokenizer_config.get("add_prefix_space")
    unigram = model.algorithm == UNIGRAM
    if unigram and model.charsmap:
        CharacterMap(model.charsmap, source)  # llama.cpp refuses to load a damaged one
    if not unigram and model.charsmap:
        notes.append(
            f"{source} normalizes text before it is split, which llama.cpp does for unigram only: texts that "
            "this changes (full-width letters, ligatures, …) will get other tokens than in the original."
        )
    if unigram and TokenType.BYTE in model.types:
        notes.append(
            f"{source} is a unigram with bytes for characters that have no token; llama.cpp makes such "
            "characters unknown tokens instead."
        )
    return Vocabulary(
        "t5" if unigram else "llama",
        "default",
        # User-defined pieces are looked for in the raw text, where a space is a space.
        tokens=[
            piece.replace("▁", " ") if kind == TokenType.USER_DEFINED else piece
            for piece, kind in zip(model.pieces, model.types, strict=True)
        ],
        types=model.types,
        scores=model.scores,
        space_prefix=prefix if isinstance(prefix, bool) else model.add_dummy_prefix,
        merges_spaces=unigram and model.remove_extra_whitespaces,
        charsmap=model.charsmap if unigram else b"",
        special_ids=model.special_ids,
    )


def _from_unigram(files: TokenizerFolder, model: dict[str, Any], notes: list[str]) -> Vocabulary:
    source = str(files.tokenizer_json_path)
    unigram = read_unigram(files.tokenizer_json, source, notes)
    if len(unigram.pieces) > MAX_TOKENS:
        raise TokenizerFileError(f"The vocabulary in {source} has {len(unigram.pieces):,} pieces.")
    unigram.types = _types_of(unigram.pieces, None, has_bytes=model.get("byte_fallback") is True)
    unknown = unigram.special_ids.get("unk", -1)
    if 0 <= unknown < len(unigram.types):
        unigram.types[unknown] = int(TokenType.UNKNOWN)
    return _from_sentencepiece(files, unigram, source, notes)


def _from_scored_merges(files: TokenizerFolder, model: dict[str, Any]) -> Vocabulary:
    """A SentencePiece BPE as `tokenizer.json` has it: the scores come back from the order of the merges."""
    source = str(files.tokenizer_json_path)
    tokens = _base_tokens(model, source)
    added = {token.text for token in files.added.values()}
    steps = flat_steps(files.tokenizer_json.get("pre_tokenizer"))
    steps += flat_steps(files.tokenizer_json.get("normalizer"))
    splits = any(step.get("type") == "Metaspace" and step.get("split", True) for step in steps)
    scores = _scores(tokens, _merges(model, source), added, splits, source)
    return Vocabulary(
        "llama",
        "default",
        tokens,
        _types_of(tokens, model.get("unk_token"), has_bytes=model.get("unk_token") is not None),
        scores=scores,
        space_prefix=any(
            step.get("prepend") == "▁"
            or (step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never")
            for step in steps
        ),
    )


def _scores(
    tokens: list[str], merges: list[tuple[str, str]], added: set[str], splits: bool, source: str
) -> list[float]:
    """A score for each token such that joining by scores does what the merges do.

    SentencePiece joins any two tokens whose text together is a token. So each such pair must be among the
    merges, and the merges that make one token must stand together; the converter from SentencePiece writes
    them so, a tokenizer trained otherwise has only some.
    """
    known = set(tokens) - added
    rank: dict[str, int] = {}
    made_by: dict[str, set[int]] = {}
    previous = None
    for left, right in merges:
        text = left + right
        if text != previous and text in rank and text in known:
            raise _unfaithful(text, source)
        rank.setdefault(text, len(rank))
        made_by.setdefault(text, set()).add(len(left))
        previous = text
    lengths = sorted({len(text) for text in known})  # few: a long text is not cut everywhere
    for text in tokens:
        if text not in known or BYTE_TOKEN.fullmatch(text):
            continue
        cuts = {i for i in lengths if 0 < i < len(text) and text[:i] in known and text[i:] in known}
        if cuts - made_by.get(text, set()) or (splits and "▁" in text[1:]):
            raise _unfaithful(text, source)
    # Tokens that no merge makes are single characters, bytes and control tokens; they come last, in order.
    return [-float(rank.get(text, len(rank) + i)) for i, text in enumerate(tokens)]


def _unfaithful(text: str, source: str) -> UnfaithfulScoresError:
    return UnfaithfulScoresError(
        f"{source} joins tokens in an order that llama.cpp cannot follow (first seen at the token "
        f"{shown(text)}); put the tokenizer.model that it was made from into the folder, if there is one."
    )


def _base_tokens(model: dict[str, Any], source: str) -> list[str]:
    vocab = model["vocab"]
    if not isinstance(vocab, dict) or not all(type(i) is int and i >= 0 for i in vocab.values()):
        raise TokenizerFileError(f"The vocabulary in {source} does not give each token an id of 0 or more.")
    by_id = {i: text for text, i in vocab.items()}
    if len(by_id) != len(vocab):
        raise TokenizerFileError(f"The vocabulary in {source} gives one id to two tokens.")
    if max(by_id, default=0) > MAX_TOKENS:
        raise TokenizerFileError(f"The vocabulary in {source} has a token with the id {shown(max(by_id))}.")
    _refuse_gaps(max(by_id, default=-1) + 1, len(by_id), source)
    return [by_id.get(i, "") for i in range(max(by_id, default=-1) + 1)]


def _merges(model: dict[str, Any], source: str) -> list[tuple[str, str]]:
    """The merges as pairs, best first; a file has them as "left right" (older) or as [left, right]."""
    merges = model.get("merges") or []
    if not isinstance(merges, list):
        raise TokenizerFileError(f"The merges in {source} are no list; download the file again.")
    pairs = []
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise TokenizerFileError(
                f"The merges in {source} hold {shown(merge)}, which is no pair of tokens."
            )
        pairs.append((pair[0], pair[1]))
    return pairs


def _types_of(tokens: list[str], unknown: object, *, has_bytes: bool) -> list[int]:
    """Types of the tokens before any were added; ids without a token are filled up later."""
    kinds = []
    for text in tokens:
        if text == unknown:
            kinds.append(TokenType.UNKNOWN)
        elif has_bytes and BYTE_TOKEN.fullmatch(text):
            kinds.append(TokenType.BYTE)
        else:
            kinds.append(TokenType.NORMAL)
    return [int(kind) for kind in kinds]


def _refuse_gaps(size: int, known: int, source: str) -> None:
    """Raises VocabularySizeError if of `size` ids, `known` of which have a token, too many have none."""
    if size - known > max(known, MAX_UNUSED):
        raise VocabularySizeError(
            f"The tokenizer in {source} has {known} tokens for {size} ids: it is damaged, or another model's."
        )


def _add_tokens(
    vocabulary: Vocabulary,
    added: dict[int, AddedToken],
    vocab_size: int | None,
    source: str,
    notes: list[str],
) -> None:
    """Puts added tokens at their ids. Those beyond the embedding have no weights: a note names them."""
    limit = MAX_TOKENS if vocab_size is None else vocab_size
    beyond = sorted(item for item in added.items() if item[0] >= limit)
    if beyond:
        token_id, token = beyond[0]
        notes.append(
            f"{len(beyond)} added tokens in {source} have ids beyond the {limit:,} rows of the embedding and "
            f"are left out, for it has no weights for them (the first: {shown(token.text)}, "
            f"id {shown(token_id)})."
        )
    fitting = sorted(item for item in added.items() if 0 <= item[0] < limit)
    if fitting:
        _refuse_gaps(fitting[-1][0] + 1, len(vocabulary.tokens) + len(fitting), source)
    for token_id, token in fitting:
        missing = token_id + 1 - len(vocabulary.tokens)
        vocabulary.tokens += [""] * missing
        vocabulary.types += [int(TokenType.UNUSED)] * missing
        vocabulary.scores += [ADDED_SCORE] * (0 if vocabulary.kind == "gpt2" else missing)
        special = token.special or LOOKS_SPECIAL.fullmatch(token.text)
        vocabulary.tokens[token_id] = token.text if special else token.text.replace("▁", " ")
        if vocabulary.types[token_id] not in (TokenType.UNKNOWN, TokenType.BYTE):
            vocabulary.types[token_id] = int(TokenType.CONTROL if special else TokenType.USER_DEFINED)


def _fill_up(vocabulary: Vocabulary, vocab_size: int | None, source: str) -> None:
    """Names every id up to `vocab_size`: llama.cpp wants a token, and another one, for each row."""
    size = len(vocabulary.tokens) if vocab_size is None else vocab_size
    if not len(vocabulary.tokens) <= size <= MAX_TOKENS:
        raise VocabularySizeError(
            f"The tokenizer in {source} has {len(vocabulary.tokens):,} tokens, but the model's embedding "
            f"only {shown(size)} rows (vocab_size in config.json): the two do not belong together; put the "
            "tokenizer files of this very model into the folder."
        )
    _refuse_gaps(size, len(vocabulary.tokens), source)
    missing = size - len(vocabulary.tokens)
    vocabulary.tokens += [""] * missing
    vocabulary.types += [int(TokenType.UNUSED)] * missing
    vocabulary.scores += [ADDED_SCORE] * (0 if vocabulary.kind == "gpt2" else missing)
    if any(0xD800 <= ord(c) <= 0xDFFF for c in "".join(vocabulary.tokens)):
        raise TokenizerFileError(f"The tokenizer in {source} has a token that is no valid text.")
    seen: dict[str, int] = {}
    for i, text in enumerate(vocabulary.tokens):
        if not text:
            vocabulary.tokens[i] = f"[PAD{i}]"
            vocabulary.types[i] = int(TokenType.UNUSED)
        first = seen.setdefault(vocabulary.tokens[i], i)
        if first != i:
            raise TokenizerFileError(
                f"The tokenizer in {source} has the token {shown(vocabulary.tokens[i])} twice "
                f"(ids {first} and {i}), which llama.cpp refuses to load."
            )
