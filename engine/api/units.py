"""How sizes and times are written for a reader: three significant digits, decimal units."""


def size(count: float) -> str:
    """Bytes in decimal units with three significant digits: 812 B, 9.42 MB, 1.07 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:.3g} {unit}"


def duration(seconds: float) -> str:
    """A length of time as a clock shows it: 0:42, 3:07, 1:02:03. Fractions are rounded up."""
    whole = -int(-seconds // 1)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
