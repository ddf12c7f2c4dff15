"""Metadata: edited in the types that they have, refused where they must stay, counted to the byte."""

import sys
from subprocess import run

import pytest
from gguf import GGUFValueType as Type
from gguf import Keys

from engine.api.chat_template import template_fault
from engine.api.errors import RecipeError
from engine.api.gguf import GgufValue, GGUFValueType
from engine.api.metadata import ALIASES, COMMON, FIXED, edited, edited_entries, entries_of, value_bytes

FILE = {
    "general.architecture": GgufValue(Type.STRING, "llama"),
    "general.name": GgufValue(Type.STRING, "Old"),
    "llama.expert_used_count": GgufValue(Type.UINT32, 2),
    "llama.rope.freq_base": GgufValue(Type.FLOAT32, 1e4),
    "tokenizer.ggml.add_bos_token": GgufValue(Type.BOOL, True),
    "tokenizer.ggml.tokens": GgufValue(Type.ARRAY, ["a", "b"], Type.STRING),
    "tokenizer.ggml.token_type": GgufValue(Type.ARRAY, [1, 1], Type.INT32),
    "general.tags": GgufValue(Type.ARRAY, ["x"], Type.STRING),
}


def test_edits_keep_the_type_of_a_key():
    edits = {
        "general.name": "New",
        "llama.expert_used_count": "4",
        "llama.rope.freq_base": 500000,
        "tokenizer.ggml.add_bos_token": "false",
        "general.tags": "a, b",
        "general.author": "Me",
        "x.count": 3,
        "x.flag": True,
    }
    found = edited(FILE, edits)
    assert found["general.name"] == GgufValue(Type.STRING, "New")
    assert found["llama.expert_used_count"] == GgufValue(Type.UINT32, 4)
    assert found["llama.rope.freq_base"] == GgufValue(Type.FLOAT32, 500000.0)
    assert found["tokenizer.ggml.add_bos_token"] == GgufValue(Type.BOOL, False)
    assert found["general.tags"] == GgufValue(Type.ARRAY, ["a", "b"], Type.STRING)
    assert list(found)[-3:] == ["general.author", "x.count", "x.flag"]
    assert (found["x.count"].type, found["x.flag"].type) == (Type.UINT32, Type.BOOL)
    assert list(FILE) == list(found)[: len(FILE)]


def test_plain_names_stand_for_keys():
    found = edited(FILE, {"name": "New", "Author": "Me", "licence": "mit", "tags": "a, b"})
    assert [found[f"general.{key}"].value for key in ("name", "author", "license", "tags")] == [
        "New",
        "Me",
        "mit",
        ["a", "b"],
    ]
    assert not [key for key in found if "." not in key]
    assert set(ALIASES.values()) == set(COMMON) - {"general.license.link"}
    assert "general.name" not in edited(FILE, {"name": ""})
    shown = {entry.key: entry.value for entry in edited_entries(entries_of(FILE), {"name": "New"})}
    assert (shown["general.name"], len(shown)) == ("New", len(FILE))
    with pytest.raises(RecipeError, match=r"general\.name is there twice"):
        edited(FILE, {"name": "New", "general.name": "Newer"})


def test_a_key_of_the_file_is_itself_whatever_its_name_stands_for_elsewhere():
    both = FILE | {"author": GgufValue(Type.STRING, "a"), "general.author": GgufValue(Type.STRING, "b")}
    found = edited(both, {"author": "Me"})
    assert (found["author"].value, found["general.author"].value) == ("Me", "b")
    assert edited_entries(entries_of(both), {"author": "Me"}) == entries_of(found)
    assert edited(both, {"author": "Me", "general.author": "You"})["general.author"].value == "You"
    own = FILE | {"mykey": GgufValue(Type.STRING, "x")}
    assert edited(own, {"mykey": "y"})["mykey"].value == "y"
    assert "mykey" not in edited(own, {"mykey": ""})


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% if m.x %}{% continue %}{% endif %}{{ m['content'] | trim }}{% endfor %}",
        "{% generation %}{{ content }}{% endgeneration %}",
        "{{ raise_exception('no') }}{%- set ns = namespace(a=1) -%}",
    ],
)
def test_templates_of_models_parse(template):
    assert template_fault(template) is None


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% if a %}\n{{ b }", "line 2: "),
        ("{% frobnicate %}", "line 1: "),
        ("{{ " + "(" * 20000, "nested too deeply"),
    ],
)
def test_templates_that_do_not_parse(template, said):
    assert said in (template_fault(template) or "")


def test_planning_an_edited_template_does_not_load_what_parses_it():
    """It takes longer than a window may stand still at a letter that is typed."""
    done = run(
        [
            sys.executable,
            "-c",
            "import sys; from engine.api.metadata import edited; from engine.api.recipe import GgufOptions\n"
            "edits = {'tokenizer.chat_template': '{{ x }}'}\n"
            "edited({}, GgufOptions(metadata=edits).metadata); sys.exit('jinja2' in sys.modules)",
        ]
    )
    assert done.returncode == 0


def test_nothing_leaves_a_key_out():
    assert "general.name" not in edited(FILE, {"general.name": ""})
    assert edited(FILE, {"general.absent": ""}) == FILE


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("general.architecture", "gemma", "it says how all others are read"),
        ("general.file_type", 1, "it follows from the formats"),
        ("split.count", 3, "it follows from the size of the files"),
        ("tokenizer.ggml.tokens", "x", "it is a list that the tokenizer or the tensors belong to"),
        ("general.name", ["a"], "cannot be a list"),
        ("general.tags", [], "is a list of texts"),
        ("llama.expert_used_count", "many", "holds a whole number, and 'many' is none that fits"),
        ("llama.expert_used_count", -1, "a whole number"),
        ("llama.expert_used_count", 1 << 32, "a whole number"),
        ("llama.expert_used_count", True, "a whole number"),
        ("llama.expert_used_count", "9" * 5000, "a whole number"),
        ("llama.rope.freq_base", "nan", "a number"),
        ("llama.rope.freq_base", 1e300, "a number"),
        ("tokenizer.ggml.add_bos_token", "yes", "true or false"),
        ("general.name", 3, "text"),
        ("general.name", "x" * (1 << 21), "text of at most"),
        ("general.name", "\udc00", "no text"),
        ("bad key", "x", "is no key"),
        ("", "x", "is no key"),
        ("x" * 300, "x", "is no key"),
        ("a\nb", "x", "'a\\nb' is no key; write letters"),
        (
            "autor",
            "x",
            "autor is no key that programs know; write it in full (nearest: general.author",
        ),
        ("zzz", "x", "such as general.author"),
    ],
)
def test_what_cannot_be(key, value, said):
    for edit in (lambda: edited(FILE, {key: value}), lambda: edited_entries(entries_of(FILE), {key: value})):
        with pytest.raises(RecipeError) as refusal:
            edit()
        assert said in str(refusal.value)
        assert len(str(refusal.value)) < 400


def test_entries_follow_edits():
    edits = {"general.name": "A longer name", "general.tags": ["é"], "general.author": "", "x.y": 1.5}
    entries = edited_entries(entries_of(FILE), edits)
    assert entries == entries_of(edited(FILE, edits))
    assert {entry.key: entry.text for entry in entries}["general.tags"] == "é"


def test_long_and_damaged_values_are_shown_short_and_stay():
    template = GgufValue(Type.STRING, "x" * 100_000)
    (entry,) = entries_of({"tokenizer.chat_template": template})
    assert (entry.value, entry.fixed) == (None, "it is too long")
    assert len(entry.text) == 65_536
    (entry,) = entries_of({"a.text": GgufValue(Type.STRING, b"caf\xe9".decode("utf-8", "surrogateescape"))})
    assert entry.text == "caf\N{REPLACEMENT CHARACTER}"
    tokens = GgufValue(Type.ARRAY, [f"t{i}" for i in range(5000)], Type.STRING)
    (entry,) = entries_of({"tokenizer.ggml.tokens": tokens})
    assert entry.text.endswith("t7, … (5,000 in all)")


def test_bytes_are_those_of_the_file():
    from io import BytesIO

    from gguf import GGUFWriter
    from gguf.gguf_writer import WriterState

    def length(metadata):
        writer = GGUFWriter(None, "llama")
        for key, value in metadata.items():
            writer.add_key_value(key, value.value, value.type, value.item_type)
        buffer = BytesIO()
        writer.fout, writer.state = [buffer], WriterState.EMPTY
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        return len(buffer.getvalue())

    assert length(FILE) == 24 + sum(value_bytes(key, value) for key, value in FILE.items())


def test_any_number_of_keys_is_shown_in_bounded_room():
    metadata = {f"x.{i}": GgufValue(Type.STRING, "y" * 60_000) for i in range(1000)}
    entries = entries_of(metadata)
    assert len(entries) == 1000
    assert sum(len(entry.text) for entry in entries) < 2_000_000
    assert sum(entry.bytes for entry in entries) == sum(value_bytes(k, v) for k, v in metadata.items())


def test_types_and_keys_are_those_of_the_package():
    assert {kind.name: kind.value for kind in GGUFValueType} == {kind.name: kind.value for kind in Type}
    kinds = (Keys.General, Keys.Tokenizer)
    known = {value for kind in kinds for value in vars(kind).values() if isinstance(value, str)}
    assert known.issuperset([*COMMON, *FIXED])
