"""What files say, as our sentences can hold it: on one line, and short. Files may say anything anywhere."""

import re
import reprlib

COMMAND_LINE = re.compile(
    r" \((?:--[a-z][^()]*|`bitwright [^`]*`[^()]*)\)"
    r"|: bitwright resume \S+(?: --restart)?$"
)
"""What a sentence says to the command line alone: "… (--overwrite)", "…: bitwright resume 1f"."""

NAME_LIMIT = 500  # the longest names of tensors have about 100 letters

DEMANDS = {
    r"a valid integer.*": "a whole number",
    r"a valid number.*": "a number",
    r"a valid boolean.*": "true or false",
    r"a valid string.*": "text in quotes",
    r"a valid list.*": "a list in brackets",
    r"a valid (dictionary|object).*": "an object in braces",
    r"greater than or equal to (\S+)": r"at least \1",
    r"less than or equal to (\S+)": r"at most \1",
    r"True": "true",
}
"""What pydantic says that an input should be, and what we say that it must be."""


def for_window(sentence: str) -> str:
    """A sentence without what only helps on the command line: the window has buttons for it."""
    left = COMMAND_LINE.sub("", sentence)
    return left if left == sentence or left.endswith((".", "!", "?")) else f"{left}."


def fits(text: str, longest: int = NAME_LIMIT) -> bool:
    """Whether a line can hold the text as it is: no control characters, no half characters, not too long."""
    return len(text) <= longest and text.isprintable()


def shown(value: object, longest: int = 80) -> str:
    """A value as Python writes it, of which no more is looked at than is shown."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = brief.maxlong = longest
    brief.maxlevel = 3
    text = brief.repr(value)
    return text if len(text) <= 2 * longest else f"{text[:longest]}…"


def named(name: object) -> str:
    """A name as it is where a line can hold it, else as Python writes it."""
    return name if isinstance(name, str) and fits(name) else shown(name)


def word(value: object, longest: int = 60) -> str | None:
    """The value if it is text that can stand in a sentence, else None."""
    return value if isinstance(value, str) and fits(value, longest) else None


def demand(message: str) -> str | None:
    """A sentence of pydantic ("Input should be greater than or equal to 1") as ours: "must be at least 1"."""
    if message.startswith("Unable to parse input string as an integer"):
        return "must be a smaller whole number"
    found = re.fullmatch(r"(?i:input should be) (.+)", message)
    if found is None:
        return None
    for theirs, ours in DEMANDS.items():
        if match := re.fullmatch(theirs, found[1]):
            return f"must be {match.expand(ours)}"
    return f"must be {found[1]}"


def printable(text: str) -> str:
    """`text` as a line can show it: names and tokens of files may hold anything, control characters too."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text
    )
