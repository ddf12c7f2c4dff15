"""Byte-level BPE with the `tokenizers` library, from the tokens and merges that a GGUF file holds."""

from typing import Any

from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from engine.api.errors import TokenizerError
from engine.api.wording import shown
from engine.tokenizer.pretokenizers import PreTokenizer


class BpeEncoder:
    """Encodes text that holds no user-defined token."""

    def __init__(self, tokens: list[str], merges: list[str], pre: PreTokenizer, source: str) -> None:
        """`merges` are "left right", best first; `source` names them in errors.

        Raises TokenizerError for a merge of unknown tokens, and for tokens that are no text.
        """
        ids = {token: i for i, token in enumerate(tokens)}
        # The first of equal merges counts, and a merge begins with at least one character: both as
        # llama.cpp reads them.
        pairs = dict.fromkeys(_pair(merge) for merge in merges)
        try:
            model = BPE(vocab=ids, merges=list(pairs), ignore_merges=pre.ignore_merges)
        except Exception as error:  # the library raises nothing more specific
            raise TokenizerError(
                f"The merges of the tokenizer in {source} do not fit its tokens ({shown(str(error))})."
            ) from error
        self._tokenizer = Tokenizer(model)
        # The stubs of `tokenizers` do not know that these are pre-tokenizers.
        steps: list[Any] = [Split(Regex(pattern), "isolated") for pattern in pre.patterns]
        steps.append(ByteLevel(add_prefix_space=False, use_regex=False))
        self._tokenizer.pre_tokenizer = Sequence(steps)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids


def _pair(merge: str) -> tuple[str, str]:
    space = merge.find(" ", 1)
    return (merge[:space], merge[space + 1 :]) if space > 0 else ("", "")
