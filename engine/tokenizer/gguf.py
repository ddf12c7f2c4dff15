"""From the tokenizer files of a Hugging Face folder to the `tokenizer.*` keys of a GGUF file."""

import re
import string
from pathlib import Path
from typing import Any

from gguf import GGUFValueType, Keys

from engine.api.errors import CheckpointError
from engine.api.gguf import GgufValue
from engine.api.wording import named, word
from engine.checkpoint.files import SourceFile
from engine.tokenizer.folder import TokenizerFileError, TokenizerFolder, read_folder, read_if_there
from engine.tokenizer.tokenizer import value_of
from engine.tokenizer.vocabulary import Vocabulary, read_vocabulary

SPECIAL_KEYS = {
    "bos": Keys.Tokenizer.BOS_ID,
    "eos": Keys.Tokenizer.EOS_ID,
    "eot": Keys.Tokenizer.EOT_ID,
    "unk": Keys.Tokenizer.UNK_ID,
    "sep": Keys.Tokenizer.SEP_ID,
    "pad": Keys.Tokenizer.PAD_ID,
    "mask": Keys.Tokenizer.MASK_ID,
}
TEMPLATE_LIMIT = 16 << 20  # the largest templates have some 50 KB
# Classes of transformers that begin every text with BOS unless a file says otherwise.
CLASSES_WITH_BOS = frozenset({"LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer"})


def tokenizer_metadata(folder: Path, vocab_size: int | None, config: dict[str, Any]) -> dict[str, GgufValue]:
    """All `tokenizer.*` keys for the model in `folder`, in the order in which they are written.

    `vocab_size` is the number of rows of the embedding (None: as many as there are tokens); ids without a
    token become unused ones. `config` is the model's config.json, which names special tokens where
    tokenizer_config.json does not. Raises TokenizerError.
    """
    files = read_folder(folder)
    vocabulary = read_vocabulary(files, vocab_size)
    special = _special_ids(files, vocabulary, config)
    flag, text, number = GGUFValueType.BOOL, GGUFValueType.STRING, GGUFValueType.UINT32
    metadata = {
        Keys.Tokenizer.MODEL: value_of(text, vocabulary.kind),
        Keys.Tokenizer.PRE: value_of(text, vocabulary.pre),
        Keys.Tokenizer.LIST: value_of(text, vocabulary.tokens),
        Keys.Tokenizer.TOKEN_TYPE: value_of(GGUFValueType.INT32, vocabulary.types),
    }
    if vocabulary.kind == "llama":
        metadata[Keys.Tokenizer.SCORES] = value_of(GGUFValueType.FLOAT32, vocabulary.scores)
        metadata[Keys.Tokenizer.ADD_PREFIX] = value_of(flag, vocabulary.space_prefix)
    else:
        metadata[Keys.Tokenizer.MERGES] = value_of(text, vocabulary.merges)
    metadata |= {SPECIAL_KEYS[name]: value_of(number, token_id) for name, token_id in special.items()}
    # Written always: what a runtime assumes without it depends on the kind and the pre-tokenizer.
    metadata[Keys.Tokenizer.ADD_BOS] = value_of(flag, _adds_bos(files, vocabulary, special))
    if files.tokenizer_config.get("add_eos_token") is True and "eos" in special:
        metadata[Keys.Tokenizer.ADD_EOS] = value_of(flag, True)
    templates = _chat_templates(files)
    if any(re.search("[\ud800-\udfff]", str(template.value)) for template in templates.values()):
        raise TokenizerFileError(
            f"The chat template in {folder} holds half of a surrogate pair, which is no valid text; "
            "download it again."
        )
    return metadata | templates


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
    if "bos" not in ids and (first := _template_start(files.tokenizer_json)) in by_text:
        ids["bos"] = by_text[first]
    return ids


def _adds_bos(files: TokenizerFolder, vocabulary: Vocabulary, special: dict[str, int]) -> bool:
    """Whether a text begins with BOS: as the config says, else as the post-processor does, else by class."""
    if "bos" not in special:
        return False
    stated = files.tokenizer_config.get("add_bos_token")
    if isinstance(stated, bool):
        return stated
    if any(step.get("type") == "TemplateProcessing" for step in _post_processors(files.tokenizer_json)):
        return _template_start(files.tokenizer_json) == vocabulary.tokens[special["bos"]]
    if vocabulary.kind == "llama":
        return True
    stated_class = word(files.tokenizer_config.get("tokenizer_class")) or ""
    return stated_class.removesuffix("Fast") in CLASSES_WITH_BOS


def _template_start(tokenizer: dict[str, Any]) -> str:
    """The special token that the post-processor puts before a text, or "" if none."""
    for step in _post_processors(tokenizer):
        match step:
            case {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": str(first)}}, _, *_]}:
                return first
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
