r"""The ways in which byte-level BPE splits text before merging, under the names that llama.cpp gives them.

A GGUF file names its way (`tokenizer.ggml.pre`) and holds no regular expression, so both sides need this
table. Each entry has the expressions as llama.cpp applies them: one after the other, each to the pieces
that the one before left, matches and gaps both kept. They are written for Oniguruma (the `tokenizers`
library). Where llama.cpp deviates from the tokenizer that a model was published with, the entry follows
llama.cpp, because its ids are the ones that the exported file will get; each deviation has a comment.

`chains` are the same ways as `tokenizer.json` spells them, see `engine.tokenizer.recognition`.
"""

from dataclasses import dataclass

from engine.api.errors import TokenizerError
from engine.api.wording import shown


class UnknownPreTokenizerError(TokenizerError):
    """The way in which a tokenizer splits its text is none that llama.cpp has a name for."""


@dataclass(frozen=True)
class PreTokenizer:
    """One way to split. `names` are llama.cpp's, the first is the one we write.

    `ignore_merges`: a piece that is a token as a whole is that token, whatever the merges say.
    `add_bos`: what llama.cpp does with a file that has no `tokenizer.ggml.add_bos_token`.
    """

    names: tuple[str, ...]
    patterns: tuple[str, ...]
    chains: tuple[tuple[str, ...], ...] = ()
    ignore_merges: bool = False
    add_bos: bool = False


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT = r"\p{N}"
DIGITS = r"\p{N}+"
UP_TO_3_DIGITS = r"\p{N}{1,3}"
PUNCTUATION_RUNS = "Punctuation:Contiguous"

# As published, and as llama.cpp writes it: the long s is no s there.
ANY_CASE_SUFFIX = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SUFFIX = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
LETTER_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
CL100K = rf"|{LETTER_WORDS}|\p{{N}}{{1,3}}|{MARKS}|{SPACES}"
QWEN2 = rf"|{LETTER_WORDS}|\p{{N}}|{MARKS}|{SPACES}"
MINICPM5 = rf"|{LETTER_WORDS}|\p{{N}}+|{MARKS}|{SPACES}"
QWEN35 = (
    r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{SPACES}"
)

# The o200k and tekken vocabularies split where lower case turns into upper case.
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
# llama.cpp tells the cases of ASCII letters only, and takes no combining marks.
ASCII_UPPER, ASCII_LOWER = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"
ANY_CASE = r"[\p{L}\p{M}]"  # where its expressions name the cases
MARKED_UPPER, MARKED_LOWER = r"(?:(?=[\p{L}\p{M}])[^a-z])", r"(?:(?=[\p{L}\p{M}])[^A-Z])"


def _cased(upper: str, lower: str, suffix: str, digits: str) -> str:
    start = r"[^\r\n\p{L}\p{N}]?"
    words = f"{start}{upper}*{lower}+{suffix}|{start}{upper}+{lower}*{suffix}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{SPACES}"


EXAONE_MOE = (
    r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
SEED_CODER = rf"|{LETTER_WORDS}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{SPACES}"
JAIS2 = rf"|{LETTER_WORDS}|\p{{N}}{{1,3}}|{MARKS}|\s*[\r\n]+|" + "|".join(
    [rf"\s{{{run}}}(?!\S)" for run in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2")] + [r"\s{1}"]
)
BAILING = rf"|{LETTER_WORDS}|\p{{N}}|{MARKS}|\s*[\r\n]|\s+(?!\S)|\s+"
BAILING_PUBLISHED = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)

# All white space beyond ASCII is a vertical tab to llama.cpp's expressions, and so in no range of theirs.
CJK_PUBLISHED = "[一-龥ࠀ-一가-퟿]+"
CJK = r"[一-龥ࠀ-一가-퟿&&\S]+"
HAN_KANA = "[一-龥\u3040-ゟ゠-ヿ]+"
# Escaped where Unicode normalization, by an editor say, would change the character.
DEEPSEEK_LETTERS = (
    "[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝ"
    "Ὗ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳ"
    "Ꙁ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
)
DEEPSEEK_MARKS_PUBLISHED = "[!-/:-~！-／：-～‘-‟\u3000-。]+"
DEEPSEEK_MARKS = DEEPSEEK_MARKS_PUBLISHED.replace("\u3000", "\u3001")
DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+")
DEEPSEEK_V3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{SPACES}"
)
SPARK = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"
)
ASIAN = (
    "[一-鿿㐀-䶿\uf900-\ufaff\u3040-ゟ゠-ヿ･-ﾟ⼀-\u2fdfเ-\u0e7f\u0e80-\u0eff"
    "ក-\u17ffက-႟ꩠ-ꩿꧠ-\ua9ff가-\ud7afᄀ-ᇿ]+"
)
YOUTU = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-\u303f︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u3040-ゟ゠-ヿ]+"
# Groups of three digits from the right, as numbers are written.
THREE_FROM_THE_RIGHT = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
TEXT_AND_DIGITS = r"\P{N}*" + THREE_FROM_THE_RIGHT  # llama.cpp does not cut before the first group
SUPER_DIGITS = r"(?=(?:[0-9]{3})+(?![0-9])).(?:(?!(?:[0-9]{3})+(?![0-9])).)*"
HAN = (
    r"[㐀-䶿一-鿿\x{F900}-\x{FAFF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}"
    r"\x{2B820}-\x{2CEAF}\x{2CEB0}-\x{2EBEF}\x{2F800}-\x{2FA1F}]"
)
KIMI = rf"{HAN}+|[^\r\n\p{{L}}\p{{N}}]?(?:(?!{HAN})\p{{L}})+{SUFFIX}?|\p{{N}}{{1,3}}|{MARKS}|{SPACES}"
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
BLOOM_PUBLISHED = r" ?[^(\s|[.,!?…。，、।۔،])]+"
THREE_DIGITS = "[0-9][0-9][0-9]"


def _deepseek_llm(marks: str, cjk: str, digits: str) -> tuple[str, ...]:
    return (r"[\r\n]", r"\s?" + DEEPSEEK_LETTERS, r"\s?" + marks, r"\s+$", cjk, digits)


PRE_TOKENIZERS: tuple[PreTokenizer, ...] = (
    PreTokenizer(
        (
            *("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "gigachat"),
            *("a.x-4.0", "mellum", "modern-bert", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de"),
            *("jina-v1-en", "jina-v2-code", "roberta-bpe"),
        ),
        (GPT2,),
        ((GPT2,),),
    ),
    PreTokenizer(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"),
        (DIGIT, GPT2),
        ((DIGIT, GPT2),),
    ),
    PreTokenizer(
        (
            *("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
            "jina-v5-nano",
        ),
        (SUFFIX + CL100K,),
        ((ANY_CASE_SUFFIX + CL100K,),),
        ignore_merges=True,
        add_bos=True,
    ),
    PreTokenizer(
        ("dbrx", "smaug-bpe", "chatglm-bpe", "glm4", "glm5"),
        (SUFFIX + CL100K,),
        ((ANY_CASE_SUFFIX + CL100K,),),
    ),
    PreTokenizer(
        (
            *("qwen2", "stablelm2", "deepseek-r1-qwen", "megrez", "kormo", "f2llmv2", "hunyuan"),
            *("solar-open", "grok-2"),
        ),
        (SUFFIX + QWEN2,),
        ((ANY_CASE_SUFFIX + QWEN2,),),
    ),
    PreTokenizer(("qwen35",), (SUFFIX + QWEN35,), ((ANY_CASE_SUFFIX + QWEN35,),)),
    PreTokenizer(("ufakzeka",), (QWEN2[1:],), ((QWEN2[1:],),)),
    PreTokenizer(
        ("minicpm5",),
        (UP_TO_3_DIGITS, SUFFIX + MINICPM5),
        ((UP_TO_3_DIGITS, ANY_CASE_SUFFIX + MINICPM5),),
        ignore_merges=True,
    ),
    PreTokenizer(
        ("tekken",),
        (_cased(ASCII_UPPER, ASCII_LOWER, "", DIGIT),),
        ((_cased(UPPER, LOWER, "", DIGIT),),),
        ignore_merges=True,
        add_bos=True,
    ),
    PreTokenizer(
        ("granite-embed-multi-97m",),
        (_cased(MARKED_UPPER, MARKED_LOWER, SUFFIX + "?", UP_TO_3_DIGITS),),
        ((_cased(UPPER, LOWER, ANY_CASE_SUFFIX + "?", UP_TO_3_DIGITS),),),
        ignore_merges=True,
    ),
    PreTokenizer(
        ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"),
        (_cased(ASCII_UPPER, ASCII_LOWER, SUFFIX + "?", UP_TO_3_DIGITS),),
        ((_cased(UPPER, LOWER, ANY_CASE_SUFFIX + "?", UP_TO_3_DIGITS),),),
    ),
    PreTokenizer(("exaone-moe",), (SUFFIX + EXAONE_MOE,), ((ANY_CASE_SUFFIX + EXAONE_MOE,),)),
    PreTokenizer(("seed-coder",), (SUFFIX + SEED_CODER,), ((ANY_CASE_SUFFIX + SEED_CODER,),)),
    PreTokenizer(("jais-2",), (SUFFIX + JAIS2,), ((ANY_CASE_SUFFIX + JAIS2,),)),
    PreTokenizer(("bailingmoe", "bailingmoe2", "llada-moe"), (SUFFIX + BAILING,), ((BAILING_PUBLISHED,),)),
    PreTokenizer(
        ("deepseek-llm",),
        _deepseek_llm(DEEPSEEK_MARKS, CJK, DIGITS),
        (
            _deepseek_llm(DEEPSEEK_MARKS_PUBLISHED, CJK_PUBLISHED, DIGIT),
            _deepseek_llm(DEEPSEEK_MARKS_PUBLISHED, CJK_PUBLISHED, DIGITS),
        ),
    ),
    PreTokenizer(
        ("deepseek-coder",),
        (*DEEPSEEK_CODER, CJK, DIGIT),
        ((*DEEPSEEK_CODER, CJK_PUBLISHED, DIGIT),),
    ),
    PreTokenizer(
        ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"),
        (UP_TO_3_DIGITS, HAN_KANA, DEEPSEEK_V3),
        ((UP_TO_3_DIGITS, HAN_KANA, DEEPSEEK_V3),),
    ),
    PreTokenizer(
        ("falcon",),
        (r"[\p{P}\$\+<=>\^~\|`]+", GPT2, THREE_DIGITS),
        ((PUNCTUATION_RUNS, GPT2, DIGITS, THREE_DIGITS),),
    ),
    PreTokenizer(("bloom", "poro-chat", "gpt3-finnish"), (BLOOM,), ((BLOOM_PUBLISHED,), (BLOOM,))),
    PreTokenizer(("viking",), (BLOOM, DIGIT), ((BLOOM_PUBLISHED, DIGIT), (BLOOM, DIGIT))),
    PreTokenizer(
        ("laguna",), (r"[^\n]+|[\n]+", SUFFIX + QWEN2), ((r"[^\n]+|[\n]+", ANY_CASE_SUFFIX + QWEN2),)
    ),
    PreTokenizer(
        ("spark2_5",), (UP_TO_3_DIGITS, HAN_KANA, SPARK, DIGIT), ((UP_TO_3_DIGITS, HAN_KANA, SPARK, DIGIT),)
    ),
    PreTokenizer(
        ("youtu",),
        (YOUTU, _cased(ANY_CASE, ANY_CASE, SUFFIX + "?", DIGIT)),
        ((YOUTU, _cased(UPPER, LOWER, ANY_CASE_SUFFIX + "?", DIGIT)),),
        ignore_merges=True,
    ),
    PreTokenizer(
        ("tiny_aya", "cohere2moe"),
        (TEXT_AND_DIGITS, _cased(ANY_CASE, ANY_CASE, SUFFIX + "?", UP_TO_3_DIGITS)),
        ((r"\d{1,3}(?=(?:\d{3})*\b)", _cased(UPPER, LOWER, ANY_CASE_SUFFIX + "?", UP_TO_3_DIGITS)),),
    ),
    PreTokenizer(
        ("superbpe",),
        (DIGITS, SUPER_DIGITS),
        ((DIGITS, r"(?=(\d{3})+(?!\d))"),),
    ),
    PreTokenizer(
        ("afmoe",),
        (TEXT_AND_DIGITS, ASIAN, DEEPSEEK_V3),
        ((THREE_FROM_THE_RIGHT, ASIAN, DEEPSEEK_V3),),
    ),
    PreTokenizer(("kimi-k2",), (KIMI,)),
    PreTokenizer(
        ("chameleon",),
        (
            *("<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )"),
            *(DIGIT, r"[\p{P}!-/:-@\[-`{-~]", GPT2),
        ),
        add_bos=True,
    ),
    # What llama.cpp does, with a loud warning, for files that name no way.
    PreTokenizer(("default",), (r"[\p{P}\$\+<=>\^~\|]+", GPT2, DIGITS, THREE_DIGITS)),
)
DEFAULT = PRE_TOKENIZERS[-1]
BY_NAME = {name: entry for entry in PRE_TOKENIZERS for name in entry.names}


def pre_tokenizer_named(name: str, source: str = "The GGUF file") -> PreTokenizer:
    """The entry of a `tokenizer.ggml.pre`; `source` is its file. Raises UnknownPreTokenizerError."""
    if name not in BY_NAME:
        raise UnknownPreTokenizerError(
            f"{source} splits text in a way called {shown(name)} (tokenizer.ggml.pre), which Bitwright does "
            "not know; measure with a runtime that does."
        )
    return BY_NAME[name]
