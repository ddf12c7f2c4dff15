"""Ways to damage a file, for the property tests and the fuzzer alike.

Each takes the bytes of a file and a `random.Random` (Hypothesis' own there, so that it can shrink) and gives
other bytes. `MUTATIONS` has one for each kind of file: those that know the layout keep most of it intact, so
that the damage gets past the first check.
"""

import io
import re
import struct
import zipfile
from collections.abc import Callable
from random import Random

Mutation = Callable[[bytes, Random], bytes]

NUMBERS = (0, 1, 2, 8, 9, 12, 127, 255, 65_535, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 60, 1 << 62,
           (1 << 63) - 1, 1 << 63, (1 << 64) - 8, (1 << 64) - 1)  # fmt: skip

HOSTILE_JSON = (
    *(b"0", b"1", b"-1", b"-0.0", b"1.5", b"1e999", b"NaN", b"Infinity", b"-Infinity", b"true", b"false"),
    *(b"null", b"[]", b"{}", b'""', b'"a"', b"[0]", b"[[]]", b'{"":0}', b'[null]', b"[1e999]"),
    *(str(1 << shift).encode() for shift in (31, 32, 53, 60, 62, 63, 64, 100)),
    *(b"9" * 4299, b"9" * 4300, b"9" * 4301, b"[" * 90 + b"]" * 90, b"[" * 5000),
    *(b'{"a":' * 450 + b"0" + b"}" * 450, b"[" * 800 + b"]" * 800, b'{"normalizers":[' * 300 + b"]}" * 300),
    *(rb'"\ud800"', rb'"\udc80\u0000"', rb'"a\nb"', rb'"\u202e\u001b[31m"', b'"' + b"x" * 3000 + b'"'),
    *(b'"../outside.safetensors"', b'"/etc/passwd"', b'".."', b'"a/b"', rb'"a\u0000b"', b'"F32"', b'"F4"'),
    *(b"[" + b"1," * 70 + b"1]", b"[" + b"0," * 40 + b"4611686018427387904]", b'"\xff"', b'"(a|aa)+$"'),
)  # fmt: skip
"""Values to put where another one was."""

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[-+.\w]+|[\[\]{}:,]')

# fmt: off
PICKLED = (
    *(bytes([code]) for code in b"0(t)}]N2asubRQo\x81\x92\x85\x86\x87\x88\x93\x94"),
    b"q\0", b"h\0", b"h\x01", b"h\x05", b"K\xff", b"M\xff\xff", b"J\xff\xff\xff\xff", b"G" + b"\xff" * 8,
    b"\x8a\x09" + b"\xff" * 8 + b"\0", b"X\x01\0\0\0a", b"X\xff\xff\xff\xff", b"ctorch\nLongStorage\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n", b"cbuiltins\neval\n",
    b"ccollections\nOrderedDict\n", b"}X\x04\0\0\0nameX\x03\0\0\0I64sb", b"}X\x05\0\0\0itemsK\x01sb",
)
# fmt: on
"""Instructions of pickles."""


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """One small wound anywhere."""
    at = random.randrange(len(data) + 1)
    length = random.choice((1, 2, 4, 8, 16, 60))
    match random.randrange(8):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + data[at + length :]
        case 2:
            return data[: at + length] + data[at:]
        case 3:
            return data[:at] + random.randbytes(length) + data[at + random.choice((0, length)) :]
        case 4:
            other = random.randrange(len(data) + 1)
            return data[:at] + data[other : other + length] + data[at + length :]
        case 5:
            bit = 1 << random.randrange(8)
            return data[:at] + bytes(byte ^ bit for byte in data[at : at + 1]) + data[at + 1 :]
        case _:
            return _with_number(data, at, random)


def _with_number(data: bytes, at: int, random: Random) -> bytes:
    """A number written over what is there, in 4 or 8 bytes: a length, a count, an offset perhaps."""
    number = random.choice((*NUMBERS, len(data), len(data) - at))
    width = random.choice((4, 8))
    return data[:at] + struct.pack("<Q", number)[:width] + data[at + width :]


def mutate_json(data: bytes, random: Random) -> bytes:
    """A value replaced, a name given twice, something lost or nested; the rest stays JSON."""
    tokens = list(_TOKEN.finditer(data))
    if not tokens or random.randrange(10) == 0:
        return mutate_bytes(data, random)
    values = [token for token in tokens if token[0] not in (b":", b",", b"]", b"}")]
    token = random.choice(values or tokens)
    start, end = token.span()
    other = random.choice(tokens)[0]
    match random.randrange(8):
        case 0:
            return data[:start] + other + data[end:]
        case 1:
            return data[:start] + b'"x":' + data[start:]
        case 2:
            return data[:start] + data[_after(data, start, tokens) :]
        case 3:
            whole = data[start : _after(data, start, tokens)]
            return data[:start] + whole + b"," + data[start:]
        case 4:
            whole = _after(data, start, tokens)
            return data[:start] + b"[" + data[start:whole] + b"]" + data[whole:]
        case _:
            return data[:start] + random.choice(HOSTILE_JSON) + data[_after(data, start, tokens) :]


def _after(data: bytes, start: int, tokens: list[re.Match[bytes]]) -> int:
    """Where the value that starts at `start` ends, brackets and all."""
    depth = 0
    for token in tokens:
        if token.start() >= start:
            depth += token[0] in (b"[", b"{")
            depth -= token[0] in (b"]", b"}")
            if depth <= 0:
                return token.end()
    return len(data)


def mutate_safetensors(data: bytes, random: Random) -> bytes:
    """The header's JSON, mostly with its length stated anew."""
    if len(data) < 8 or random.randrange(4) == 0:
        return mutate_bytes(data, random)
    length = min(int.from_bytes(data[:8], "little"), len(data) - 8)
    header = mutate_json(data[8 : 8 + length], random)
    stated = random.choice(NUMBERS) if random.randrange(10) == 0 else len(header)
    return struct.pack("<Q", stated) + header + data[8 + length :]


def mutate_archive(data: bytes, random: Random) -> bytes:
    """The pickle in an archive, or a record's place in it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            records = [(info.filename, file.read(info)) for info in file.infolist()]
    except Exception:  # what was damaged before cannot be taken apart
        records = []
    pickles = [number for number, (name, _) in enumerate(records) if name.endswith(".pkl")]
    if not pickles or random.randrange(4) == 0:
        return mutate_bytes(data, random)
    name, content = records[pickles[0]]
    if random.randrange(2):
        content = mutate_bytes(content, random)
    else:
        at = random.randrange(len(content) + 1)
        content = content[:at] + random.choice(PICKLED) + content[at + random.choice((0, 1, 2)) :]
    records[pickles[0]] = name, content
    return archive(dict(records))


def archive(records: dict[str, bytes]) -> bytes:
    """A zip archive, not compressed, the same bytes at any time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in records.items():
            file.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()
