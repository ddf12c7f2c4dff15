"""Reads the pickles that `torch.save` writes, without Python's `pickle`: no pickle can call anything here.

A pickle is a program for a machine with a stack, whose instructions can call any function by its name. This
machine knows only the instructions that describe a state dict, and only the names it is given; those stand
for functions of ours. What it builds is new, so that one file cannot change how the next is read: lists,
tuples, texts, numbers, and dictionaries with plain keys. (A key that is a tuple of the same tuple twice, and
so on, takes exponential time to hash.)

Instructions: https://github.com/python/cpython/blob/main/Lib/pickletools.py
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

STACK_LIMIT = 10_000  # dictionaries and lists are filled by a thousand items at a time
MARKS_LIMIT = 100

Names = Mapping[tuple[str, str], Any]
"""By module and name: a `Function`, or a plain value that nothing can change."""


class PickleError(Exception):
    """What is wrong with a pickle; `str(error)` can stand in a sentence."""


class UnknownNameError(PickleError):
    """A pickle that asks for a name it has no need of; the text is the name."""


@dataclass(frozen=True)
class Function:
    """What a pickle may call. It must check its arguments and raise PickleError."""

    call: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Reference:
    """Something that lies outside of the pickle, under an identifier of the pickle's own making."""

    identifier: Any


_NUMBERS = {  # by instruction: how its number is stored
    "K": "<B", "M": "<H", "J": "<i", "G": ">d", "q": "<B", "r": "<I", "h": "<B", "j": "<I",
    "\x80": "<B", "\x95": "<Q",
}  # fmt: skip
_LENGTHS = {"X": "<I", "\x8c": "<B", "\x8d": "<Q", "\x8a": "<B"}
_CONSTANTS = {"N": None, "\x88": True, "\x89": False}
_KEYS = (str, int, float, bool, type(None))


def load(data: bytes, names: Names) -> Any:
    """What the pickle describes. Raises UnknownNameError, or PickleError for what is damaged or unusual."""
    try:
        return _Machine(data, names).run()
    except (IndexError, struct.error):
        raise PickleError("it ends too early") from None
    except KeyError:
        raise PickleError("it recalls what it has not noted") from None
    except UnicodeDecodeError:
        raise PickleError("a text in it is none") from None


class _Machine:
    def __init__(self, data: bytes, names: Names) -> None:
        self._data, self._names = data, names
        self._at = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []  # heights of the stack
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        while (code := chr(self._data[self._at])) != ".":
            self._at += 1
            self._step(code)
            if len(self._stack) > STACK_LIMIT or len(self._marks) > MARKS_LIMIT:
                raise PickleError("it piles up more than any model needs")
        return self._stack[-1]

    def _step(self, code: str) -> None:
        """One instruction; the most frequent ones first."""
        stack = self._stack
        match code:
            case "q" | "r":
                self._memo[self._number(code)] = stack[-1]
            case "h" | "j":
                stack.append(self._memo[self._number(code)])
            case "K" | "M" | "J" | "G":
                stack.append(self._number(code))
            case "X" | "\x8c" | "\x8d":
                stack.append(self._counted(code).decode("utf-8", "surrogatepass"))
            case "\x8a":
                stack.append(int.from_bytes(self._counted(code), "little", signed=True))
            case "N" | "\x88" | "\x89":
                stack.append(_CONSTANTS[code])
            case "(":
                self._marks.append(len(stack))
            case ")" | "\x85" | "\x86" | "\x87" | "t":
                count = len(self._above_mark()) if code == "t" else ")\x85\x86\x87".index(code)
                self._push_tuple(count)
            case "}" | "]":
                stack.append({} if code == "}" else [])
            case "s" | "u":
                self._set_items(2 if code == "s" else len(self._above_mark()))
            case "a" | "e":
                self._append(1 if code == "a" else len(self._above_mark()))
            case _:
                self._rare_step(code)

    def _rare_step(self, code: str) -> None:
        stack = self._stack
        match code:
            case "c":
                self._push_named(self._line(), self._line())
            case "\x93":
                module, name = self._popped(2)
                self._push_named(module, name)
            case "R":
                function, arguments = self._popped(2)
                if not isinstance(function, Function) or not isinstance(arguments, tuple):
                    raise PickleError("it calls what is no function")
                stack.append(function.call(*arguments))
            case "Q":
                stack.append(Reference(stack.pop()))
            case "b":  # a state dict carries versions of its modules, which are not needed
                self._popped(1)
                if not isinstance(stack[-1], dict):
                    raise PickleError("it changes what is no dictionary")
            case "\x94":
                self._memo[len(self._memo)] = stack[-1]
            case "\x80" | "\x95":
                self._number(code)
            case _:
                raise PickleError(f"the instruction {ord(code)} is not one that describes tensors")

    def _number(self, code: str) -> Any:
        layout = _NUMBERS[code]
        (number,) = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return number

    def _counted(self, code: str) -> bytes:
        layout = _LENGTHS[code]
        (length,) = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout) + length
        if self._at > len(self._data):
            raise PickleError("it ends too early")
        return self._data[self._at - length : self._at]

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at)
        if end < 0:
            raise PickleError("it ends too early")
        line = self._data[self._at : end].decode()
        self._at = end + 1
        return line

    def _above_mark(self) -> range:
        """The places on the stack above the last mark, which is taken away."""
        mark = self._marks.pop()
        if mark > len(self._stack):
            raise PickleError("it takes away what is marked")
        return range(mark, len(self._stack))

    def _popped(self, count: int) -> list[Any]:
        if count > len(self._stack):
            raise PickleError("it takes more than there is")
        start = len(self._stack) - count
        popped = self._stack[start:]
        del self._stack[start:]
        return popped

    def _push_tuple(self, count: int) -> None:
        self._stack.append(tuple(self._popped(count)))

    def _set_items(self, count: int) -> None:
        items = self._popped(count)
        target = self._stack[-1]
        if not isinstance(target, dict) or count % 2:
            raise PickleError("it fills what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in _KEYS:
                raise PickleError("a key in it is neither text nor number")
            target[key] = value

    def _append(self, count: int) -> None:
        items = self._popped(count)
        if not isinstance(self._stack[-1], list):
            raise PickleError("it fills what is no list")
        self._stack[-1].extend(items)

    def _push_named(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("a name in it is no text")
        if (module, name) not in self._names:
            raise UnknownNameError(f"{module}.{name}")
        self._stack.append(self._names[module, name])
