"""What files say, as our sentences can hold it: on one line, and short. Files may say anything anywhere."""

import reprlib

NAME_LIMIT = 500  # the longest names of tensors have about 100 letters


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
