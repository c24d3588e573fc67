"""The operations of a pickle that arrays in plain containers need, and a refusal of all others; see `pickles`."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.importers.npy_header import dtype_of

DAMAGED = (LookupError, ValueError, TypeError, OverflowError)
"""What malformed operations lead to."""
ENCODED = 1 << 26
"""Bytes that are made of texts in one pickle, at most: one text may be asked for many times."""
_NAMES = {
    f"{module} {name}": name
    for modules, names in (
        (("numpy.core.multiarray", "numpy._core.multiarray"), ("_reconstruct", "scalar")),
        (("numpy.core.numeric", "numpy._core.numeric"), ("_frombuffer",)),
        (("numpy",), ("ndarray", "dtype")),
        (("_codecs",), ("encode",)),
        (("__builtin__", "builtins"), ("bytes",)),
    )
    for module in modules
    for name in names
}
"""What may be named; everything else is refused."""
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
    "BYTEARRAY8",
}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


@dataclass
class PickledArray:
    """An array in a pickle.

    Attributes:
        content: Its numbers; a list if it is an array of objects; None while its state was not read.
    """

    content: NDArray[Any] | list[Any] | None = None


@dataclass
class _Type:
    """A dtype: its name, and once its byte order was read, what it is; None: of objects."""

    name: str
    known: bool = False
    dtype: np.dtype[Any] | None = None


@dataclass(frozen=True)
class _Name:
    name: str


@dataclass
class PickleReader:
    """Carries out the operations of a pickle, one after the other.

    Attributes:
        where: Names the pickle in messages.
        stack: The values that are being put together.
        memory: Values that stand in it more than once.
        encoded: Bytes that were made of texts.
    """

    where: str
    stack: list[Any] = field(default_factory=list)
    memory: dict[int, Any] = field(default_factory=dict)
    encoded: int = 0

    def do(self, name: str, value: Any) -> None:
        """Carries out an operation, as `pickletools` names it, with its argument.

        Raises:
            InputError: It is for something else than arrays in plain containers.
            Exception: One of `DAMAGED`: it does not fit what is on the stack.
        """
        if name in _VALUES:
            self.stack.append(bytes(value) if name == "BYTEARRAY8" else value)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            self.stack[-_TUPLES[name] :] = [tuple(self._last(_TUPLES[name]))]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memory[value])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self.memory[len(self.memory) if name == "MEMOIZE" else value] = self._last(1)[0]
        elif name == "GLOBAL":
            self.stack.append(self._named(value))
        elif name not in ("PROTO", "FRAME"):
            if name not in _OPERATIONS:
                raise InputError(self._refusal(f"the operation {name}"))
            _OPERATIONS[name](self)

    def result(self) -> Any:
        """The value on top of the stack; raises one of `DAMAGED` if there is none."""
        return self._last(1)[0]

    def mark(self) -> None:
        """Begins a list of values."""
        self.stack.append(_MARK)

    def tuple_(self) -> None:
        """Makes a tuple of the values since the mark."""
        self.stack.append(tuple(self._marked()))

    def list_(self) -> None:
        """Makes a list of the values since the mark."""
        self.stack.append(self._marked())

    def dict_(self) -> None:
        """Makes a dict of the values since the mark."""
        self.stack.append(self._pairs({}, self._marked()))

    def append(self) -> None:
        """Adds a value to a list."""
        value = self.stack.pop()
        self._container(list).append(value)

    def appends(self) -> None:
        """Adds the values since the mark to a list."""
        values = self._marked()
        self._container(list).extend(values)

    def setitem(self) -> None:
        """Adds an item to a dict."""
        pair = self._last(2)
        del self.stack[-2:]
        self._pairs(self._container(dict), pair)

    def setitems(self) -> None:
        """Adds the items since the mark to a dict."""
        values = self._marked()
        self._pairs(self._container(dict), values)

    def stack_global(self) -> None:
        """Puts what is named by two texts on the stack."""
        module, name = self._last(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name that is no text")
        self.stack[-2:] = [self._named(f"{module} {name}")]

    def reduce(self) -> None:
        """Makes what a call would make."""
        called, arguments = self._last(2)
        if not isinstance(called, _Name) or not isinstance(arguments, tuple):
            raise TypeError("a call of something that is no name")
        self.stack[-2:] = [self._made(called.name, arguments)]

    def build(self) -> None:
        """Gives an array or a type its state."""
        made, state = self._last(2)
        if not isinstance(state, tuple):
            raise TypeError("a state that is no tuple")
        if isinstance(made, PickledArray) and made.content is None:
            _, shape, kind, columns, content = state
            made.content = self._array(kind, shape, columns, content)
        elif isinstance(made, _Type) and not made.known:
            self._complete(made, state)
        else:
            raise TypeError(f"a state for something of the kind {type(made).__name__}")
        self.stack.pop()

    def _made(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name == "_reconstruct":
            if arguments[0] != _Name("ndarray"):
                raise InputError(self._refusal("an array of a class of its own"))
            return PickledArray()
        if name == "dtype" and isinstance(arguments[0], str):
            return _Type(arguments[0])
        if name == "encode" and isinstance(arguments[0], str) and arguments[1] == "latin1":
            self.encoded += len(arguments[0])
            if self.encoded > ENCODED:
                raise ValueError(f"more than {ENCODED} bytes are made of texts")
            return arguments[0].encode("latin-1")  # how the oldest protocols hold bytes
        if name == "bytes" and not arguments:
            return b""
        if name == "scalar":
            kind, content = arguments
            value = self._array(kind, (1,), False, content)
            if isinstance(value, list):
                raise TypeError("a number that is an object")
            return value[0].item()
        if name == "_frombuffer":
            content, kind, shape, order = arguments
            return PickledArray(self._array(kind, shape, order == "F", content))
        raise TypeError(f"a call of {name}")

    def _complete(self, made: _Type, state: tuple[Any, ...]) -> None:
        version, order, *inner = state
        if version not in (3, 4) or not isinstance(order, str) or any(part is not None for part in inner[:3]):
            raise InputError(self._refusal(f"a type of numbers with parts ({made.name[:40]})"))
        if made.name not in ("O", "O8"):
            made.dtype = dtype_of(order, made.name, f"an array of {self.where}")
        made.known = True

    def _array(self, kind: Any, shape: Any, columns: Any, content: Any) -> NDArray[Any] | list[Any]:
        if not isinstance(kind, _Type) or not kind.known or not isinstance(shape, tuple) or len(shape) > 8:
            raise TypeError("an array without type or shape")
        if not all(isinstance(length, int) and 0 <= length < 1 << 40 for length in shape):
            raise ValueError("an array with lengths that are no counts")
        count = math.prod(shape)
        if kind.dtype is None:
            if not isinstance(content, list) or len(content) != count:
                raise ValueError(f"an array of {count} objects that holds others")
            return content
        if not isinstance(content, bytes) or len(content) != count * kind.dtype.itemsize:
            raise ValueError(f"an array of {count} numbers that holds others")
        flat = np.frombuffer(content, kind.dtype)
        return flat.reshape(shape[::-1]).T if columns else flat.reshape(shape)

    def _named(self, name: str) -> _Name:
        if name not in _NAMES:
            raise InputError(self._refusal(f"the name {'.'.join(name.split(' '))[:200]!r}"))
        return _Name(_NAMES[name])

    def _refusal(self, what: str) -> str:
        return (
            f"{self.where} is a pickle with {what}; expected numpy arrays in plain containers and nothing else, "
            "because it could run code. Nothing of it was run. Save the arrays with numpy.savez if you trust it."
        )

    def _last(self, count: int) -> list[Any]:
        """The last values; a mark is none."""
        values = self.stack[-count:]
        if len(values) < count or any(value is _MARK for value in values):
            raise ValueError("an operation without its values")
        return values

    def _marked(self) -> list[Any]:
        """Takes all values since the last mark from the stack, and the mark."""
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("an end without a beginning")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def _container(self, kind: type[Any]) -> Any:
        """The value on top, which is to be added to."""
        value = self._last(1)[0]
        if type(value) is not kind:
            raise TypeError(f"items for something that is no {kind.__name__}")
        return value

    def _pairs(self, into: dict[str, Any], values: list[Any]) -> dict[str, Any]:
        if len(values) % 2 or not all(isinstance(key, str) for key in values[::2]):
            raise TypeError("a dict with keys that are no texts")
        into.update(zip(values[::2], values[1::2], strict=True))
        return into


_OPERATIONS: dict[str, Callable[[PickleReader], None]] = {
    "MARK": PickleReader.mark,
    "TUPLE": PickleReader.tuple_,
    "LIST": PickleReader.list_,
    "DICT": PickleReader.dict_,
    "APPEND": PickleReader.append,
    "APPENDS": PickleReader.appends,
    "SETITEM": PickleReader.setitem,
    "SETITEMS": PickleReader.setitems,
    "STACK_GLOBAL": PickleReader.stack_global,
    "REDUCE": PickleReader.reduce,
    "BUILD": PickleReader.build,
}
