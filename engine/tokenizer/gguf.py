"""From the tokenizer files of a Hugging Face folder to the `tokenizer.*` keys of a GGUF file."""

import re
import string
from pathlib import Path
from typing import Any, Literal

from gguf import Keys

from engine.api.errors import CheckpointError
from engine.api.gguf import GgufValue, GGUFValueType
from engine.api.wording import named, shown, word
from engine.checkpoint.files import SourceFile
from engine.tokenizer.folder import TokenizerFileError, TokenizerFolder, read_folder, read_if_there
from engine.tokenizer.tokenizer import ENDS_BY_NAME, value_of
from engine.tokenizer.vocabulary import Vocabulary, read_vocabulary

SPECIAL_KEYS = {
    "bos": Keys.Tokenizer.BOS_ID,
    "eos": Keys.Tokenizer.EOS_ID,
    "eot": Keys.Tokenizer.EOT_ID,
    "eom": Keys.Tokenizer.EOM_ID,
    "unk": Keys.Tokenizer.UNK_ID,
    "sep": Keys.Tokenizer.SEP_ID,
    "pad": Keys.Tokenizer.PAD_ID,
    "mask": Keys.Tokenizer.MASK_ID,
}
STRIPPING_NAMES = ("phi-3", "phi3")  # llama.cpp looks for these in general.name
TEMPLATE_LIMIT = 16 << 20  # the largest templates have some 50 KB
# Classes of transformers that begin every text with BOS unless a file says otherwise.
CLASSES_WITH_BOS = frozenset({"LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer"})


def tokenizer_metadata(
    folder: Path,
    vocab_size: int | None,
    config: dict[str, Any],
    *,
    pre_tokenizer: str | None = None,
    notes: list[str] | None = None,
) -> dict[str, GgufValue]:
    """All `tokenizer.*` keys for the model in `folder`, in the order in which they are written.

    `vocab_size` is the number of rows of the embedding (None: as many as there are tokens); ids without a
    token become unused ones. `config` is the model's config.json, which names special tokens where
    tokenizer_config.json does not. `pre_tokenizer` is the user's choice instead of the recognised one.
    `notes` takes sentences for the reader. Raises TokenizerError, and RecipeError for a `pre_tokenizer` that
    is unknown or has no use.
    """
    files = read_folder(folder)
    notes = [] if notes is None else notes
    vocabulary = read_vocabulary(files, vocab_size, pre_tokenizer, notes)
    notes += _stripping(files)
    special = _special_ids(files, vocabulary, config)
    special |= _further_ends(files, vocabulary, config, special, notes)
    flag, text, number = GGUFValueType.BOOL, GGUFValueType.STRING, GGUFValueType.UINT32
    metadata = {
        Keys.Tokenizer.MODEL: value_of(text, vocabulary.kind),
        Keys.Tokenizer.PRE: value_of(text, vocabulary.pre),
        Keys.Tokenizer.LIST: value_of(text, vocabulary.tokens),
        Keys.Tokenizer.TOKEN_TYPE: value_of(GGUFValueType.INT32, vocabulary.types),
    }
    if vocabulary.kind == "gpt2":
        metadata[Keys.Tokenizer.MERGES] = value_of(text, vocabulary.merges)
    else:
        metadata[Keys.Tokenizer.SCORES] = value_of(GGUFValueType.FLOAT32, vocabulary.scores)
        metadata[Keys.Tokenizer.ADD_PREFIX] = value_of(flag, vocabulary.space_prefix)
    if vocabulary.kind == "t5":
        metadata[Keys.Tokenizer.REMOVE_EXTRA_WS] = value_of(flag, vocabulary.merges_spaces)
    if vocabulary.charsmap:
        table = list(vocabulary.charsmap)
        metadata[Keys.Tokenizer.PRECOMPILED_CHARSMAP] = value_of(GGUFValueType.UINT8, table)
    metadata |= {SPECIAL_KEYS[name]: value_of(number, token_id) for name, token_id in special.items()}
    # Written always: what a runtime assumes without it depends on the kind and the pre-tokenizer.
    metadata[Keys.Tokenizer.ADD_BOS] = value_of(flag, _adds_bos(files, vocabulary, special))
    adds_eos = "eos" in special and _adds_eos(files, vocabulary, special)
    if adds_eos or vocabulary.kind == "t5":  # which else adds it
        metadata[Keys.Tokenizer.ADD_EOS] = value_of(flag, adds_eos)
    templates = _chat_templates(files)
    if any(re.search("[\ud800-\udfff]", str(template.value)) for template in templates.values()):
        raise TokenizerFileError(
            f"The chat template in {folder} holds half of a surrogate pair, which is no valid text; "
            "download it again."
        )
    return metadata | templates


def _stripping(files: TokenizerFolder) -> list[str]:
    """A note if added tokens take white space beside them along: llama.cpp asks the model's name for that."""
    texts = [token.text for token in files.added.values() if token.strips]
    name = files.folder.resolve().name.lower()
    if not texts or any(one in name for one in STRIPPING_NAMES):
        return []
    return [
        f"{len(texts)} added tokens in {files.folder} take white space beside them along (the first: "
        f"{shown(texts[0])}); a GGUF file cannot say so, and llama.cpp keeps that white space."
    ]


def _special_ids(files: TokenizerFolder, vocabulary: Vocabulary, config: dict[str, Any]) -> dict[str, int]:
    """Ids by name, from tokenizer_config.json, else config.json, else tokenizer.model."""
    by_text = {text: i for i, text in enumerate(vocabulary.tokens)}
    ids = {}
    for name in SPECIAL_KEYS:
        named = config.get(f"{name}_token_id")
        candidates = (
            by_text.get(files.special_text(name) or ""),
            named[0] if isinstance(named, list) and named else named,
            vocabulary.special_ids.get(name),
        )
        valid = (one for one in candidates if type(one) is int and 0 <= one < len(vocabulary.tokens))
        if (token_id := next(valid, None)) is not None:
            ids[name] = token_id
    if "bos" not in ids and (first := _template_token(files.tokenizer_json, 0)) in by_text:
        ids["bos"] = by_text[first]
    return ids


def _further_ends(
    files: TokenizerFolder,
    vocabulary: Vocabulary,
    config: dict[str, Any],
    special: dict[str, int],
    notes: list[str],
) -> dict[str, int]:
    """Ids by name for further tokens that end a text, where the model has several.

    llama.cpp knows one of each kind (eos, eot, eom) and those whose texts say it (ENDS_BY_NAME).
    """
    stated: list[object] = []
    for source in (read_if_there(files.folder / "generation_config.json"), config):
        ids = source.get("eos_token_id")
        stated += ids if isinstance(ids, list) else [ids]
    found: dict[str, int] = {}
    without = []
    for token_id in dict.fromkeys(one for one in stated if type(one) is int):
        if not 0 <= token_id < len(vocabulary.tokens) or token_id in (special | found).values():
            continue
        text = vocabulary.tokens[token_id]
        if text in ENDS_BY_NAME:
            continue
        free = next((name for name in ("eos", "eot", "eom") if name not in special | found), None)
        if free is None:
            without.append(text)
        else:
            found[free] = token_id
    if without:
        notes.append(
            f"{files.folder} names more tokens that end a text than llama.cpp's files hold; it will not "
            f"stop at {shown(', '.join(without), 200)}."
        )
    return found


def _adds_bos(files: TokenizerFolder, vocabulary: Vocabulary, special: dict[str, int]) -> bool:
    """Whether a text begins with BOS: as the config says, else as the post-processor does, else by class."""
    if "bos" not in special:
        return False
    stated = files.tokenizer_config.get("add_bos_token")
    if isinstance(stated, bool):
        return stated
    if any(step.get("type") == "TemplateProcessing" for step in _post_processors(files.tokenizer_json)):
        return _template_token(files.tokenizer_json, 0) == vocabulary.tokens[special["bos"]]
    if vocabulary.kind == "llama":
        return True
    stated_class = word(files.tokenizer_config.get("tokenizer_class")) or ""
    return stated_class.removesuffix("Fast") in CLASSES_WITH_BOS


def _adds_eos(files: TokenizerFolder, vocabulary: Vocabulary, special: dict[str, int]) -> bool:
    """Whether a text ends with EOS: as the config says, else as the post-processor does."""
    stated = files.tokenizer_config.get("add_eos_token")
    if isinstance(stated, bool):
        return stated
    return _template_token(files.tokenizer_json, -1) == vocabulary.tokens[special["eos"]]


def _template_token(tokenizer: dict[str, Any], place: Literal[0, -1]) -> str:
    """The special token that the post-processor puts before (0) or behind (-1) a text, or "" if none."""
    for step in _post_processors(tokenizer):
        match step:
            case {"type": "TemplateProcessing", "single": [_, _, *_] as parts}:
                match parts[place]:
                    case {"SpecialToken": {"id": str(text)}}:
                        return text
    return ""


def _post_processors(tokenizer: dict[str, Any]) -> list[dict[str, Any]]:
    step = tokenizer.get("post_processor")
    inner = step.get("processors") if isinstance(step, dict) else None
    return [one for one in (inner if isinstance(inner, list) else [step]) if isinstance(one, dict)]


def _template_text(path: Path) -> str:
    """The text of a template's file. It is copied into the output, so a link must not name another file."""
    target = path.resolve()
    if target.name != path.name and target.parent.name != "blobs":  # Hugging Face's cache links into blobs
        raise TokenizerFileError(
            f"{path} links to another file, {named(str(target))}, whose text would be written into the "
            "output; put the template itself there."
        )
    try:
        file = SourceFile(path)
        if file.size > TEMPLATE_LIMIT:
            raise TokenizerFileError(f"{path} has {file.size:,} bytes; no template is so large.")
        content = file.read(0, file.size, "the text").decode()
        file.close()
    except UnicodeDecodeError as error:
        raise TokenizerFileError(f"{path} is not UTF-8 text; download it again.") from error
    except CheckpointError as error:
        raise TokenizerFileError(str(error)) from error
    return content


def _chat_templates(files: TokenizerFolder) -> dict[str, GgufValue]:
    """The chat template, and named further ones where the model has several."""
    content: object = files.tokenizer_config.get("chat_template")
    jinja = files.folder / "chat_template.jinja"
    if jinja.is_file():  # newer than the entry in the config, and wins over it in transformers
        content = _template_text(jinja)
    elif content is None:
        content = read_if_there(files.folder / "chat_template.json").get("chat_template")
    if isinstance(content, str):
        return {Keys.Tokenizer.CHAT_TEMPLATE: value_of(GGUFValueType.STRING, content)}
    templates: dict[str, GgufValue] = {}
    names = []
    for entry in content if isinstance(content, list) else []:
        match entry:
            case {"name": "default", "template": str(template)}:
                templates[Keys.Tokenizer.CHAT_TEMPLATE] = value_of(GGUFValueType.STRING, template)
            case {"name": str(name), "template": str(template)}:
                plain = "".join(c if c in string.ascii_letters + string.digits else "_" for c in name)
                names.append(plain)
                key = Keys.Tokenizer.CHAT_TEMPLATE_N.format(name=plain)
                templates[key] = value_of(GGUFValueType.STRING, template)
    if names:
        templates[Keys.Tokenizer.CHAT_TEMPLATES] = value_of(GGUFValueType.STRING, names)
    return templates
