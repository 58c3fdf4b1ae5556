"""Read the pickle of a CellTypist model without unpickling it.

A pickle is a program for a small stack machine. Python's own machine imports and calls whatever the program names; this
one knows only what a CellTypist model needs: plain values, NumPy arrays, and the attributes of a few scikit-learn
classes. It imports nothing and calls nothing that the file names: every name is looked up in a fixed table, and stands
for a stand-in of this module. Any other instruction or name is refused with the first one that was met.
"""

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from canal.errors import WeightsError

LARGEST_FILE = 1_000_000_000  # bytes; CellTypist's largest models have a tenth of it
MOST_INSTRUCTIONS = 20_000_000  # a model of 40,000 genes has 200,000
# Types of array elements: numbers, truth values and text. No records, no times, no pointers.
_ELEMENTS = re.compile(r"[biufU]\d{1,6}|O8|O|\?")


class RefusedError(Exception):
    """What the file holds is not part of a CellTypist model; the message says what."""


class _Mark:
    """Where a group of values begins on the stack."""


@dataclass
class Estimator:
    """A scikit-learn object as the file describes it: the name of its class and its attributes."""

    kind: str
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Array:
    """A NumPy array: made first, filled by the instruction after it."""

    values: np.ndarray | None = None


@dataclass
class _Element:
    """Type of the elements of an array, such as ``f8``, and its byte order."""

    code: str
    order: str = "<"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type as NumPy has it; never of Python objects."""
        if self.code.startswith("O"):
            message = "an array of objects where numbers are expected"
            raise RefusedError(message)
        return np.dtype(self.order + self.code if self.code != "?" else "?")


@dataclass(frozen=True)
class _Name:
    """A name that the file may use, and what becomes of it."""

    name: str


# What a CellTypist model names, by module and name as NumPy and scikit-learn spelled them over the years.
_NAMES: dict[tuple[str, str], _Name] = {
    ("numpy", "ndarray"): _Name("ndarray"),
    ("numpy", "dtype"): _Name("dtype"),
    ("_codecs", "encode"): _Name("encode"),
}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray", "_reconstruct"] = _Name("reconstruct")
    _NAMES[f"{_core}.multiarray", "scalar"] = _Name("scalar")
    _NAMES[f"{_core}.numeric", "_frombuffer"] = _Name("frombuffer")
for _module, _class in (
    ("sklearn.linear_model._logistic", "LogisticRegression"),
    ("sklearn.linear_model.logistic", "LogisticRegression"),
    ("sklearn.linear_model._stochastic_gradient", "SGDClassifier"),
    ("sklearn.linear_model.stochastic_gradient", "SGDClassifier"),
    ("sklearn.preprocessing._data", "StandardScaler"),
    ("sklearn.preprocessing.data", "StandardScaler"),
):
    _NAMES[_module, _class] = _Name(_class)
# The loss that a model was trained with is never used again: it becomes nothing.
for _module, _class in (
    ("_loss", "CyHalfBinomialLoss"),
    ("sklearn._loss._loss", "CyHalfBinomialLoss"),
    ("sklearn.linear_model._sgd_fast", "Log"),
    ("sklearn.linear_model.sgd_fast", "Log"),
):
    _NAMES[_module, _class] = _Name("loss")
_CLASSES = ("LogisticRegression", "SGDClassifier", "StandardScaler")


def read_pickle(path: Path) -> Any:
    """Return what a pickle of a CellTypist model holds: dicts, lists, text, numbers, arrays and `Estimator`.

    Raises
    ------
    WeightsError
        If the file is missing or too large, no pickle, cut short, or holds what no such model holds.
    """
    if not path.is_file():
        message = f"{path} is not there; expected a model of CellTypist, such as Immune_All_Low.pkl."
        raise WeightsError(message)
    if path.stat().st_size > LARGEST_FILE:
        message = f"{path} has {path.stat().st_size:,} bytes; expected {LARGEST_FILE:,} at most of a CellTypist model."
        raise WeightsError(message)
    try:
        return _Machine().run(path.read_bytes())
    except RefusedError as error:
        message = (
            f"{path} is refused: it holds {error}, which no model of CellTypist does. Nothing of it was run. Do not "
            "open it with pickle; fetch the model again from its source."
        )
        raise WeightsError(message) from error
    except Exception as error:  # whatever a file that somebody made up brings forth
        message = (
            f"{path} cannot be read as a model of CellTypist ({type(error).__name__}: {str(error)[:200]}). Nothing of "
            "it was run. Fetch the model again from its source."
        )
        raise WeightsError(message) from error


class _Machine:
    """The stack machine: values, and those that are remembered by number."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        """Follow the instructions to the end, and return the one value that is left."""
        for count, (instruction, argument, _position) in enumerate(pickletools.genops(content)):
            if count > MOST_INSTRUCTIONS:
                message = f"more than {MOST_INSTRUCTIONS:,} instructions"
                raise RefusedError(message)
            name = instruction.name
            if name == "STOP":
                (value,) = self._stack
                return value
            if name in _PUSHED:
                self._stack.append(argument)
            elif name in _STEPS:
                _STEPS[name](self, argument)
            elif name not in _IGNORED:
                message = f"the instruction {name} ({str(argument)[:60]})"
                raise RefusedError(message)
        message = "no end"
        raise RefusedError(message)

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def pop(self) -> Any:
        """Take the last value from the stack."""
        value = self._stack.pop()
        if isinstance(value, _Mark):
            message = "a mark where a value is expected"
            raise RefusedError(message)
        return value

    def since_mark(self) -> list[Any]:
        """Take the values behind the last mark, and the mark."""
        values = []
        while not isinstance(self._stack[-1], _Mark):
            values.append(self._stack.pop())
        self._stack.pop()
        return values[::-1]

    def last(self, kind: type) -> Any:
        """Return the last value, which stays; refuse another kind."""
        if not isinstance(self._stack[-1], kind):
            message = f"{type(self._stack[-1]).__name__} where {kind.__name__} is expected"
            raise RefusedError(message)
        return self._stack[-1]

    def remember(self, number: int | None) -> None:
        """Remember the last value under a number, the next free one by default."""
        self._memo[len(self._memo) if number is None else number] = self._stack[-1]

    def recall(self, number: int) -> None:
        """Put a value on the stack that was remembered."""
        self._stack.append(self._memo[number])

    def set_items(self, pairs: list[Any]) -> None:
        """Add keys and values to the dict that is last."""
        table = self.last(dict)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Only text: nested tuples as keys are hashed to a depth that ends the process.
            if not isinstance(key, str):
                message = f"a dict whose key is {type(key).__name__}"
                raise RefusedError(message)
            table[key] = value

    def name(self, module: Any, name: Any) -> None:
        """Put what a name stands for on the stack; refuse any name that is not in the table."""
        known = _NAMES.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if known is None:
            message = f"the name {str(module)[:60]}.{str(name)[:60]}"
            raise RefusedError(message)
        self._stack.append(known)

    def call(self) -> None:
        """Do what the call of a known function stands for."""
        arguments, function = self.pop(), self.pop()
        kind = function.name if isinstance(function, _Name) else ""
        if kind not in _CALLS or not isinstance(arguments, tuple):
            message = f"a call of {kind or type(function).__name__}"
            raise RefusedError(message)
        self._stack.append(_CALLS[kind](*arguments))

    def make(self) -> None:
        """Make a scikit-learn object without attributes."""
        arguments, kind = self.pop(), self.pop()
        if not isinstance(kind, _Name) or kind.name not in _CLASSES or arguments != ():
            message = f"an object of {getattr(kind, 'name', type(kind).__name__)} with arguments"
            raise RefusedError(message)
        self._stack.append(Estimator(kind.name))

    def build(self) -> None:
        """Fill the last object: attributes of a scikit-learn object, content of an array, order of its bytes."""
        state, target = self.pop(), self._stack[-1]
        if isinstance(target, Estimator) and isinstance(state, dict):
            target.attributes.update(state)
        elif isinstance(target, _Array) and isinstance(state, tuple):
            target.values = _array_of(*state)
        elif isinstance(target, _Element) and isinstance(state, tuple) and len(state) >= 5:
            # Version, byte order, then what only records have.
            if state[1] not in ("<", ">", "|", "=") or state[2:5] != (None, None, None):
                message = "an array of records"
                raise RefusedError(message)
            target.order = state[1]
        elif target is not None:  # a loss, which became nothing
            message = f"a state for {type(target).__name__}"
            raise RefusedError(message)


def _array_of(version: int, shape: Any, element: Any, fortran: bool, content: Any) -> np.ndarray:  # noqa: ARG001
    """Return an array of its shape, type and content as NumPy's ``__setstate__`` takes them."""
    _check_shape(shape)
    if not isinstance(element, _Element):
        message = "an array without a type"
        raise RefusedError(message)
    if element.code.startswith("O"):
        # Objects are text or nothing: what else they may be is nothing that a model needs.
        if not isinstance(content, list) or not all(isinstance(value, str) for value in content):
            message = "an array of objects other than text"
            raise RefusedError(message)
        flat = np.array(content, dtype=object)
    else:
        if not isinstance(content, bytes):
            message = f"the content of an array as {type(content).__name__}"
            raise RefusedError(message)
        flat = np.frombuffer(content, dtype=element.dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _check_shape(shape: Any) -> None:
    """Refuse what is no shape of an array."""
    if not isinstance(shape, tuple) or len(shape) > 2 or not all(type(n) is int and n >= 0 for n in shape):
        message = f"an array of the shape {str(shape)[:60] if isinstance(shape, int) else type(shape).__name__}"
        raise RefusedError(message)


def _element(code: Any, *_flags: Any) -> _Element:
    if not isinstance(code, str) or not _ELEMENTS.fullmatch(code):
        message = f"an array of {str(code)[:20]!r}"
        raise RefusedError(message)
    return _Element(code)


def _scalar(element: Any, content: Any) -> Any:
    """Return one number or text."""
    if not isinstance(element, _Element) or not isinstance(content, bytes):
        message = "a number without a type"
        raise RefusedError(message)
    return np.frombuffer(content, dtype=element.dtype)[0].item()


def _encoded(text: Any, encoding: Any) -> bytes:
    """Return the bytes that older pickles write as text."""
    if not isinstance(text, str) or encoding != "latin1":
        message = f"bytes encoded as {str(encoding)[:20]!r}"
        raise RefusedError(message)
    return text.encode("latin1")


def _reconstructed(kind: Any, *_shape_and_code: Any) -> _Array:
    """Return an array that is to be filled."""
    if not isinstance(kind, _Name) or kind.name != "ndarray":
        message = f"an array of the class {getattr(kind, 'name', type(kind).__name__)}"
        raise RefusedError(message)
    return _Array()


def _from_buffer(content: Any, element: Any, shape: Any, order: Any) -> _Array:
    return _Array(_array_of(1, shape, element, order == "F", bytes(content)))


def _nothing(*_arguments: Any) -> None:
    return None


# What the call of a name stands for.
_CALLS: dict[str, Callable[..., Any]] = {
    "dtype": _element,
    "scalar": _scalar,
    "encode": _encoded,
    "reconstruct": _reconstructed,
    "frombuffer": _from_buffer,
    "loss": _nothing,
}

# Instructions whose argument is a value; those that say nothing of the content; and all others that are followed.
_PUSHED = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_IGNORED = frozenset({"PROTO", "FRAME"})
_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": lambda machine, _: machine.push(_Mark()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.push((machine.pop(),)),
    "TUPLE2": lambda machine, _: machine.push((machine.pop(), machine.pop())[::-1]),
    "TUPLE3": lambda machine, _: machine.push((machine.pop(), machine.pop(), machine.pop())[::-1]),
    "APPEND": lambda machine, _: _append(machine, [machine.pop()]),
    "APPENDS": lambda machine, _: _append(machine, machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    "BINPUT": lambda machine, number: machine.remember(number),
    "LONG_BINPUT": lambda machine, number: machine.remember(number),
    "MEMOIZE": lambda machine, _: machine.remember(None),
    "BINGET": lambda machine, number: machine.recall(number),
    "LONG_BINGET": lambda machine, number: machine.recall(number),
    "GLOBAL": lambda machine, text: machine.name(*text.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(*(machine.pop(), machine.pop())[::-1]),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.make(),
    "BUILD": lambda machine, _: machine.build(),
}


def _append(machine: _Machine, values: list[Any]) -> None:
    machine.last(list).extend(values)


def array_in(value: Any) -> np.ndarray | None:
    """Return the array that a value of `read_pickle` holds, ``None`` where it is none."""
    return value.values if isinstance(value, _Array) else None
