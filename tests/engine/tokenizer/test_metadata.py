"""From the files of a Hugging Face folder to GGUF's tokenizer keys: every key, and every broken file."""

import json
import shutil
from pathlib import Path

import gguf
import pytest
import sentencepiece
from gguf import Keys, TokenType

from engine.api.errors import TokenizerError
from engine.tokenizer import tokenizer_metadata
from engine.tokenizer.folder import MissingTokenizerError, TokenizerFileError
from engine.tokenizer.pretokenizers import UnknownPreTokenizerError
from engine.tokenizer.sentencepiece_model import SentencePieceFileError, read_sentencepiece
from engine.tokenizer.vocabulary import UnfaithfulScoresError, UnknownModelTypeError, VocabularySizeError
from tests.engine.tokenizer.samples import SAMPLE_MODEL, change_json, write_converted
from tests.tiny import write_bpe, write_sentencepiece

SIZE = 400


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    for name, write in (("bpe", write_bpe), ("spm", write_sentencepiece)):
        (folder / name).mkdir()
        write(folder / name, SIZE)
    return folder


@pytest.fixture
def bpe(tmp_path: Path, made: Path) -> Path:
    return shutil.copytree(made / "bpe", tmp_path / "bpe")


@pytest.fixture
def spm(tmp_path: Path, made: Path) -> Path:
    return shutil.copytree(made / "spm", tmp_path / "spm")


def values(folder: Path, size: int | None = SIZE, **config: object) -> dict:
    return {key: entry.value for key, entry in tokenizer_metadata(folder, size, config).items()}


def change_model(folder: Path, **changes: object) -> None:
    path = folder / "tokenizer.json"
    model = json.loads(path.read_text())["model"]
    change_json(path, model=model | changes)


def test_sample_model() -> None:
    found = values(SAMPLE_MODEL, 4096, bos_token_id=0, eos_token_id=1)
    stated = json.loads((SAMPLE_MODEL / "tokenizer.json").read_text())["model"]
    assert found[Keys.Tokenizer.MODEL] == "gpt2"
    assert found[Keys.Tokenizer.PRE] == "gpt-2"
    assert {text: i for i, text in enumerate(found[Keys.Tokenizer.LIST])} == stated["vocab"]
    assert [merge.split(" ") for merge in found[Keys.Tokenizer.MERGES]] == stated["merges"]
    assert found[Keys.Tokenizer.TOKEN_TYPE][:3] == [TokenType.CONTROL, TokenType.CONTROL, TokenType.NORMAL]
    assert (found[Keys.Tokenizer.BOS_ID], found[Keys.Tokenizer.EOS_ID]) == (0, 1)
    # Nothing in its tokenizer_config.json says so; the post-processor does.
    assert found[Keys.Tokenizer.ADD_BOS] is True
    assert Keys.Tokenizer.ADD_EOS not in found
    assert Keys.Tokenizer.SCORES not in found


def test_types_are_those_that_gguf_writes_and_reads_back(tmp_path: Path, bpe: Path, spm: Path) -> None:
    for folder in (bpe, spm):
        (folder / "chat_template.jinja").write_text("{{ messages }}")
        metadata = tokenizer_metadata(folder, SIZE, {})
        path = tmp_path / f"{folder.name}.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        for key, entry in metadata.items():
            writer.add_key_value(key, entry.value, entry.type, entry.item_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        fields = gguf.GGUFReader(path).fields
        assert {key: fields[key].contents() for key in metadata} == {k: v.value for k, v in metadata.items()}


def test_missing_rows_become_unused_tokens(bpe: Path, spm: Path) -> None:
    for folder in (bpe, spm):
        found = values(folder, SIZE + 2)
        assert found[Keys.Tokenizer.LIST][-2:] == [f"[PAD{SIZE}]", f"[PAD{SIZE + 1}]"]
        assert found[Keys.Tokenizer.TOKEN_TYPE][-2:] == [TokenType.UNUSED] * 2
    assert len(found[Keys.Tokenizer.SCORES]) == SIZE + 2


def test_more_tokens_than_rows_are_refused(bpe: Path, spm: Path) -> None:
    for folder in (bpe, spm):
        with pytest.raises(
            VocabularySizeError, match=f"{SIZE} tokens, but the model's embedding only 300 rows"
        ):
            values(folder, 300)


def test_added_tokens(bpe: Path, spm: Path) -> None:
    entry = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        entry | {"id": SIZE, "content": "<tool>", "special": False},
        entry | {"id": SIZE + 1, "content": "<|looks_special|>", "special": False},
        entry | {"id": SIZE + 2, "content": "[special]", "special": True},
        entry | {"id": SIZE + 3, "content": "▁▁", "special": False},
        entry | {"id": SIZE + 9, "content": "beyond the embedding", "special": True},
    ]
    change_json(bpe / "tokenizer.json", added_tokens=added)
    change_json(spm / "tokenizer_config.json", added_tokens_decoder={str(one["id"]): one for one in added})
    for folder in (bpe, spm):
        found = values(folder, SIZE + 5)
        names = ["<tool>", "<|looks_special|>", "[special]", "  ", f"[PAD{SIZE + 4}]"]
        assert found[Keys.Tokenizer.LIST][SIZE:] == names
        kinds = [TokenType.USER_DEFINED, TokenType.CONTROL, TokenType.CONTROL, TokenType.USER_DEFINED]
        assert found[Keys.Tokenizer.TOKEN_TYPE][SIZE:] == [*kinds, TokenType.UNUSED]


def test_added_tokens_beyond_the_embedding_are_said(bpe: Path) -> None:
    added = {"<pad>": SIZE, "<more>": SIZE + 1}
    (bpe / "added_tokens.json").write_text(json.dumps(added))
    notes: list[str] = []
    found = tokenizer_metadata(bpe, SIZE, {}, notes=notes)
    assert len(found[Keys.Tokenizer.LIST].value) == SIZE
    assert len(notes) == 1
    assert f"2 added tokens in {bpe} have ids beyond the {SIZE} rows" in notes[0]
    assert "'<pad>'" in notes[0]
    tokenizer_metadata(bpe, SIZE + 2, {}, notes=notes)
    assert len(notes) == 1


def test_several_tokens_that_end_a_text(bpe: Path) -> None:
    ends = [2, 50, 51, 52]
    (bpe / "generation_config.json").write_text(json.dumps({"eos_token_id": ends[:3]}))
    notes: list[str] = []
    found = tokenizer_metadata(bpe, SIZE, {"eos_token_id": 2}, notes=notes)
    assert [
        found[key].value for key in (Keys.Tokenizer.EOS_ID, Keys.Tokenizer.EOT_ID, Keys.Tokenizer.EOM_ID)
    ] == [
        2,
        50,
        51,
    ]
    assert not notes
    (bpe / "generation_config.json").write_text(json.dumps({"eos_token_id": [*ends, SIZE + 9, "x"]}))
    tokenizer_metadata(bpe, SIZE, {}, notes=notes)
    assert len(notes) == 1
    assert repr(found[Keys.Tokenizer.LIST].value[52]) in notes[0]
    # llama.cpp stops at this one by its name.
    change_json(bpe / "tokenizer.json", added_tokens=[{"id": SIZE, "content": "<|eot_id|>", "special": True}])
    (bpe / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, SIZE]}))
    assert Keys.Tokenizer.EOT_ID not in values(bpe, SIZE + 1)


def test_eos_is_added_as_the_post_processor_does(bpe: Path) -> None:
    parts = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|end|>", "type_id": 0}}]
    change_json(bpe / "tokenizer.json", post_processor=template(None) | {"single": parts})
    (bpe / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    assert values(bpe)[Keys.Tokenizer.ADD_EOS] is True
    change_json(bpe / "tokenizer_config.json", add_eos_token=False)
    assert Keys.Tokenizer.ADD_EOS not in values(bpe)


def test_added_tokens_json_of_older_folders(spm: Path) -> None:
    (spm / "added_tokens.json").write_text(json.dumps({"<extra>": SIZE}))
    found = values(spm, SIZE + 1)
    assert found[Keys.Tokenizer.LIST][SIZE] == "<extra>"
    assert found[Keys.Tokenizer.TOKEN_TYPE][SIZE] == TokenType.USER_DEFINED


def test_merges_may_be_strings_or_pairs(bpe: Path) -> None:
    pairs = json.loads((bpe / "tokenizer.json").read_text())["model"]["merges"]
    before = values(bpe)[Keys.Tokenizer.MERGES]
    change_model(bpe, merges=[" ".join(pair) for pair in pairs])
    assert values(bpe)[Keys.Tokenizer.MERGES] == before


def template(first: str | None) -> dict:
    start = [{"SpecialToken": {"id": first, "type_id": 0}}] if first else []
    return {
        "type": "TemplateProcessing",
        "single": [*start, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [],
        "special_tokens": {},
    }


BYTES_ONLY = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}


@pytest.mark.parametrize(
    ("post_processor", "config", "expected"),
    [
        (template("<|begin|>"), {}, True),
        (template("<|begin|>"), {"add_bos_token": False}, False),
        (template("<|begin|>"), {"add_bos_token": None}, True),
        (template("<|end|>"), {}, False),
        (template(None), {"tokenizer_class": "LlamaTokenizerFast"}, False),
        ({"type": "Sequence", "processors": [BYTES_ONLY, template("<|begin|>")]}, {}, True),
        (BYTES_ONLY, {}, False),
        (BYTES_ONLY, {"add_bos_token": True}, True),
        (None, {"tokenizer_class": "GPT2Tokenizer"}, False),
        (None, {"tokenizer_class": "LlamaTokenizerFast"}, True),
        (None, {"tokenizer_class": "LlamaTokenizer", "bos_token": None}, False),
        ({"type": "Sequence", "processors": 3}, {}, False),
    ],
)
def test_bos_is_added_as_the_model_was_made(
    bpe: Path, post_processor: object, config: dict, expected: bool
) -> None:
    change_json(bpe / "tokenizer.json", post_processor=post_processor)
    (bpe / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<|begin|>"} | config))
    assert values(bpe)[Keys.Tokenizer.ADD_BOS] is expected


def test_sentencepiece_adds_bos_unless_told_otherwise(spm: Path) -> None:
    (spm / "tokenizer_config.json").unlink()
    found = values(spm)
    assert found[Keys.Tokenizer.ADD_BOS] is True
    # Without a config the file itself names them.
    assert (found[Keys.Tokenizer.BOS_ID], found[Keys.Tokenizer.EOS_ID]) == (1, 2)
    change_json(spm / "tokenizer_config.json", add_bos_token=False)
    assert values(spm)[Keys.Tokenizer.ADD_BOS] is False


def test_special_ids(bpe: Path) -> None:
    change_json(
        bpe / "tokenizer_config.json", bos_token={"content": "<|begin|>"}, eos_token=None, pad_token="<|pad|>"
    )
    found = values(bpe, eos_token_id=[2, 7], unk_token_id=SIZE + 5, sep_token_id="x")
    assert found[Keys.Tokenizer.BOS_ID] == 1
    assert found[Keys.Tokenizer.EOS_ID] == 2
    assert found[Keys.Tokenizer.PAD_ID] == 0
    assert Keys.Tokenizer.UNK_ID not in found
    assert Keys.Tokenizer.SEP_ID not in found
    assert Keys.Tokenizer.ADD_EOS not in found
    change_json(bpe / "tokenizer_config.json", add_eos_token=True)
    assert values(bpe, eos_token_id=2)[Keys.Tokenizer.ADD_EOS] is True


def test_chat_templates(bpe: Path) -> None:
    assert Keys.Tokenizer.CHAT_TEMPLATE not in values(bpe)
    (bpe / "chat_template.json").write_text('{"chat_template": "from json"}')
    assert values(bpe)[Keys.Tokenizer.CHAT_TEMPLATE] == "from json"
    change_json(bpe / "tokenizer_config.json", chat_template="from config")
    assert values(bpe)[Keys.Tokenizer.CHAT_TEMPLATE] == "from config"
    several = [{"name": "default", "template": "one"}, {"name": "tool-use", "template": "two"}]
    change_json(bpe / "tokenizer_config.json", chat_template=several)
    found = values(bpe)
    assert found[Keys.Tokenizer.CHAT_TEMPLATE] == "one"
    assert found["tokenizer.chat_template.tool_use"] == "two"
    assert found[Keys.Tokenizer.CHAT_TEMPLATES] == ["tool_use"]
    (bpe / "chat_template.jinja").write_text("from jinja")
    assert values(bpe)[Keys.Tokenizer.CHAT_TEMPLATE] == "from jinja"


def test_tokenizer_model_pieces_scores_and_types(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the boats lay at the wall; nobody answered\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        **{"input": str(tmp_path / "text.txt"), "model_prefix": str(tmp_path / "tokenizer")},
        **{"vocab_size": 300, "model_type": "bpe", "byte_fallback": True, "minloglevel": 2},
        **{"user_defined_symbols": ["▁▁", "foo"], "control_symbols": ["[INST]"], "pad_id": 3},
        **{"add_dummy_prefix": False, "hard_vocab_limit": True, "normalization_rule_name": "identity"},
    )
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    model = read_sentencepiece(tmp_path / "tokenizer.model")
    count = len(library)
    assert model.pieces == [library.id_to_piece(i) for i in range(count)]
    assert model.scores == [library.get_score(i) for i in range(count)]
    for kind, test in (
        (TokenType.UNKNOWN, library.is_unknown),
        (TokenType.CONTROL, library.is_control),
        (TokenType.BYTE, library.is_byte),
        (TokenType.UNUSED, library.is_unused),
    ):
        assert [one == kind for one in model.types] == [test(i) for i in range(count)]
    assert model.special_ids == {"unk": 0, "bos": 1, "eos": 2, "pad": 3}
    found = values(tmp_path, None)
    user_defined = [
        text
        for text, kind in zip(found[Keys.Tokenizer.LIST], found[Keys.Tokenizer.TOKEN_TYPE], strict=True)
        if kind == TokenType.USER_DEFINED
    ]
    assert user_defined == ["  ", "foo"]
    assert found[Keys.Tokenizer.ADD_PREFIX] is False
    assert found[Keys.Tokenizer.PAD_ID] == 3


def test_converted_types_and_prefix(tmp_path: Path, made: Path) -> None:
    original = values(made / "spm")
    for metaspace in (False, True):
        write_converted(tmp_path, made / "spm" / "tokenizer.model", metaspace=metaspace)
        found = values(tmp_path)
        for key in (Keys.Tokenizer.LIST, Keys.Tokenizer.TOKEN_TYPE, Keys.Tokenizer.ADD_PREFIX):
            assert found[key] == original[key]
    never = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False}
    change_json(tmp_path / "tokenizer.json", pre_tokenizer=never)
    assert values(tmp_path)[Keys.Tokenizer.ADD_PREFIX] is False


def test_tokenizer_model_wins_over_its_conversion(spm: Path) -> None:
    write_converted(spm, spm / "tokenizer.model")
    change_model(spm, merges=[])
    assert values(spm)[Keys.Tokenizer.SCORES] == read_sentencepiece(spm / "tokenizer.model").scores


def test_merges_that_scores_cannot_tell_are_refused(tmp_path: Path, made: Path) -> None:
    write_converted(tmp_path, made / "spm" / "tokenizer.model")
    merges = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["merges"]
    made_by: dict[str, list] = {}
    for left, right in merges:
        made_by.setdefault(left + right, []).append([left, right])
    text, pairs = next((text, pairs) for text, pairs in made_by.items() if len(pairs) > 1)
    for wrong in ([m for m in merges if m != pairs[1]], [*(m for m in merges if m != pairs[0]), pairs[0]]):
        change_model(tmp_path, merges=wrong)
        with pytest.raises(UnfaithfulScoresError, match=r"tokenizer\.model") as caught:
            values(tmp_path)
        assert repr(text) in str(caught.value)


def test_words_split_at_spaces_cannot_hold_spaces(tmp_path: Path, made: Path) -> None:
    write_converted(tmp_path, made / "spm" / "tokenizer.model", metaspace=True)
    model = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    change_model(
        tmp_path,
        vocab=model["vocab"] | {"a▁": SIZE, "a▁b": SIZE + 1},
        merges=[*model["merges"], ["a", "▁"], ["a", "▁b"], ["a▁", "b"]],
    )
    values(tmp_path, SIZE + 2)
    splits = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    change_json(tmp_path / "tokenizer.json", pre_tokenizer=splits)
    with pytest.raises(UnfaithfulScoresError):
        values(tmp_path, SIZE + 2)


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(
        MissingTokenizerError, match=r"no tokenizer \(looked for tokenizer\.json and .*\); add"
    ):
        values(tmp_path)


@pytest.mark.parametrize("kind", ["WordPiece", "WordLevel"])
def test_other_kinds_of_tokenizer(bpe: Path, kind: str) -> None:
    change_model(bpe, type=kind)
    with pytest.raises(UnknownModelTypeError, match=f"kind {kind}"):
        values(bpe)


def test_bpe_that_is_neither_of_both_kinds(bpe: Path) -> None:
    change_json(bpe / "tokenizer.json", pre_tokenizer={"type": "Whitespace"})
    with pytest.raises(UnknownModelTypeError):
        values(bpe)


def test_normalizers(bpe: Path) -> None:
    change_json(bpe / "tokenizer.json", normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}]})
    values(bpe)
    change_json(bpe / "tokenizer.json", normalizer={"type": "Lowercase"})
    with pytest.raises(UnknownPreTokenizerError, match="Lowercase"):
        values(bpe)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"model": 3}',
        b'{"model": {"type": "BPE"}}',
        b"\xff\xfe",
        b'{"a":' * 100_000,
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_damaged_tokenizer_json(bpe: Path, content: bytes) -> None:
    (bpe / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerFileError, match=r"tokenizer\.json"):
        values(bpe)


@pytest.mark.parametrize(
    "changes",
    [
        {"vocab": [["a", 0.5]]},
        {"vocab": {"a": -1}},
        {"vocab": {"a": "0"}},
        {"vocab": {"a": 0, "b": 0}},
        {"vocab": {"a": 10**12}},
        {"vocab": {"\ud800": 9}, "merges": []},
        {"merges": 5},
        {"merges": [["a"]]},
        {"merges": ["a b c"]},
        {"merges": [[1, 2]]},
        {"merges": [["no", "where"]]},
    ],
)
def test_damaged_vocabulary(bpe: Path, changes: dict) -> None:
    change_model(bpe, **changes)
    with pytest.raises(TokenizerFileError):
        values(bpe)


@pytest.mark.parametrize(
    "entry", [{"id": 3}, {"content": "x"}, {"id": "x", "content": "x"}, 7, {"id": 1, "content": 2}]
)
def test_damaged_added_tokens(bpe: Path, entry: object) -> None:
    change_json(bpe / "tokenizer.json", added_tokens=[entry])
    with pytest.raises(TokenizerFileError, match="added tokens"):
        values(bpe)


def test_a_token_twice(bpe: Path) -> None:
    change_json(bpe / "tokenizer.json", added_tokens=[{"id": SIZE, "content": "a", "special": True}])
    with pytest.raises(TokenizerFileError, match=f"'a' twice.*{SIZE}"):
        values(bpe, SIZE + 1)


@pytest.mark.parametrize("size", [0, 10, 200])
def test_damaged_tokenizer_model(spm: Path, size: int) -> None:
    path = spm / "tokenizer.model"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(SentencePieceFileError, match=r"tokenizer\.model is"):
        values(spm)


def test_a_tokenizer_model_of_another_kind(spm: Path) -> None:
    path = spm / "tokenizer.model"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(SentencePieceFileError, match="pointer"):
        values(spm)
    (spm / "text.txt").write_text("the boats lay at the wall; nobody answered\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(spm / "text.txt"),
        model_prefix=str(spm / "tokenizer"),
        vocab_size=10,
        minloglevel=2,
        model_type="word",
    )
    with pytest.raises(SentencePieceFileError, match="kind word"):
        values(spm)


def test_a_broken_tokenizer_json_is_named_with_the_line(bpe: Path) -> None:
    (bpe / "tokenizer.json").write_text('{\n"model": {,')
    with pytest.raises(TokenizerFileError, match=r"tokenizer\.json is not JSON from line 2, column 11 on"):
        values(bpe)


@pytest.mark.parametrize("template", ["\ud800", [{"name": "tools", "template": "\udc00"}]])
def test_a_chat_template_that_is_no_text(bpe: Path, template: object) -> None:
    change_json(bpe / "tokenizer_config.json", chat_template=template)
    with pytest.raises(TokenizerFileError, match=r"chat template .* half of a surrogate pair"):
        values(bpe)


def test_every_error_is_the_users_to_mend() -> None:
    for error in (
        MissingTokenizerError,
        TokenizerFileError,
        SentencePieceFileError,
        UnfaithfulScoresError,
        UnknownModelTypeError,
        UnknownPreTokenizerError,
        VocabularySizeError,
    ):
        assert issubclass(error, TokenizerError)
