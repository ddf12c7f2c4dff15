"""How sizes and times are written for a reader, and sizes read: three significant digits, decimal units."""

import re

SIZE = re.compile(r"\s*([0-9.]+(?:e[0-9]+)?)\s*(?:([kmgt])(i?)b?|b|bytes)?\s*", re.IGNORECASE)
POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def digits(value: float) -> str:
    """Three significant digits for a column, zeros and all, no exponent: 16.0, 4.50, 0.00102, 1350."""
    exponent = int(f"{value:.2e}".partition("e")[2])
    return f"{value:.{max(0, 2 - exponent)}f}" if value else "0"


def size(count: float, *, column: bool = False) -> str:
    """Bytes in decimal units with three significant digits: 812 B, 9.42 MB, 1.07 GB.

    `column`: in one of several, so also 6.00 MB.
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    number = digits(count) if column and unit != "B" else f"{count:.3g}"
    return f"{number} {unit}"


def done_of(done: int, total: int, unit: str) -> str:
    """ "32 MB of 58 MB", "17 of 32 windows"."""
    if unit == "bytes":
        return f"{size(done)} of {size(total)}"
    return f"{done} of {total} {unit}"


def parse_size(text: str) -> int:
    """The bytes that a reader's "8GB", "7.5 GiB", "800 MB", "2G" or "8e9" stands for.

    Raises ValueError with a sentence for the reader.
    """
    found = SIZE.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        number, unit, binary = found.groups()
        count = float(number) * (1024 if binary else 1000) ** POWERS.get((unit or "").lower(), 0)
        return int(count)  # an infinite one raises OverflowError
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no size in bytes: write it like 8GB, 7.5GiB or 800MB.") from None


def duration(seconds: float) -> str:
    """A length of time as a clock shows it: 0:42, 3:07, 1:02:03. Fractions are rounded up."""
    whole = -int(-seconds // 1)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def rough(seconds: float) -> str:
    """A length of time that is only estimated: about 40 s, about 3 min, about 2 h 10 min."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60) if minutes >= 120 else (0, minutes)
    return f"about {hours} h {minutes} min" if hours else f"about {minutes} min"
