"""What a file must hold, said once where the file is read: types, ranges, lengths, and one form of message.

A kind says what one value may be; kinds nest, and `check` looks a whole document through. Lists that must be equally
long share an axis: the first value that has it fixes its length.

    check(content, Record({"width": Integer(1, axis="O"), "mean": ListOf(Number(), "O")}), "the file x.json")
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mtorl import InputError

State = dict[str, Any]
"""What an object goes on from: tensors and plain values by their names, as in torch's `state_dict`."""
Document = dict[str, Any]
"""An object of a file: plain values by their names."""
SINGLE = 3.4028234663852886e38
"""The largest number in single precision, in which everything is computed."""


class MismatchError(Exception):
    """A value is not of its kind; the message names the field, what was found and what was expected."""


class Axes:
    """Lengths that several lists of one document share."""

    def __init__(self) -> None:
        self._fixed: dict[str, tuple[int, str]] = {}

    def agree(self, axis: str | int, length: int, path: str) -> None:
        """Raises MismatchError if a list is not as long as its axis (a name, or a fixed length; "": any length)."""
        if axis == "":
            return
        expected, source = (axis, "") if isinstance(axis, int) else self._fixed.setdefault(axis, (length, path))
        if length != expected:
            raise MismatchError(f"{path} counts {length}; expected {expected}{f', as {source}' if source else ''}")


class Kind(Protocol):
    """What a value may be."""

    def check(self, value: Any, path: str, axes: Axes) -> None:
        """Raises MismatchError unless the value at `path` is of this kind."""
        ...


@dataclass(frozen=True)
class Text:
    """A string; one of `choices`, if there are any."""

    choices: Sequence[str] = ()

    def check(self, value: Any, path: str, axes: Axes) -> None:
        """See `Kind.check`."""
        if not isinstance(value, str) or (self.choices and value not in self.choices):
            raise _mismatch(path, value, f"one of {', '.join(self.choices)}" if self.choices else "a string")


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def check(self, value: Any, path: str, axes: Axes) -> None:
        """See `Kind.check`."""
        if not isinstance(value, bool):
            raise _mismatch(path, value, "true or false")


@dataclass(frozen=True)
class Integer:
    """An integer in [least, most]; it is the length of `axis`, if there is one."""

    least: int
    most: int = 2**63 - 1
    axis: str = ""

    def check(self, value: Any, path: str, axes: Axes) -> None:
        """See `Kind.check`."""
        if type(value) is not int or not self.least <= value <= self.most:
            bounds = f"of at least {self.least}" if self.most == 2**63 - 1 else f"in [{self.least}, {self.most}]"
            raise _mismatch(path, value, f"an integer {bounds}")
        axes.agree(self.axis, value, path)


@dataclass(frozen=True)
class Number:
    """A number in [least, most] that is finite in single precision."""

    least: float = -SINGLE
    most: float = SINGLE

    def check(self, value: Any, path: str, axes: Axes) -> None:
        """See `Kind.check`."""
        if type(value) not in (int, float) or not self.least <= value <= self.most:
            least, most = self.least > -SINGLE, self.most < SINGLE
            bounds = f" in [{self.least:g}, {self.most:g}]" if most else f" of at least {self.least:g}" if least else ""
            raise _mismatch(path, value, f"a finite number{bounds}")


@dataclass(frozen=True)
class Nullable:
    """Null, or a value of that kind."""

    kind: Kind

    def check(self, value: Any, path: str, axes: Axes) -> None:
        """See `Kind.check`."""
        if value is not None:
            self.kind.check(value, path, axes)


@dataclass(frozen=True)
class ListOf:
    """A list of values of one kind, as long as its axis (a name, a fixed length, or "": any length)."""

    kind: Kind
    axis: str | int = ""
    least: int = 0

    def check(self, value: Any, path: str, axes: Axes) -> None:
        """See `Kind.check`."""
        if not isinstance(value, list | tuple) or len(value) < self.least:
            raise _mismatch(path, value, f"a list of at least {self.least}" if self.least else "a list")
        axes.agree(self.axis, len(value), path)
        for place, item in enumerate(value):
            self.kind.check(item, f"{path}[{place}]", axes)


@dataclass(frozen=True)
class Names:
    """A list of strings, at least one, none of them twice; as long as its axis."""

    axis: str | int = ""

    def check(self, value: Any, path: str, axes: Axes) -> None:
        """See `Kind.check`."""
        ListOf(Text(), self.axis, 1).check(value, path, axes)
        twice = [name for place, name in enumerate(value) if name in value[:place]]
        if twice:
            raise MismatchError(f"{path} names {twice[0]!r} twice; expected every name once")


@dataclass(frozen=True)
class MappingOf:
    """An object: values of one kind by any names."""

    kind: Kind

    def check(self, value: Any, path: str, axes: Axes) -> None:
        """See `Kind.check`."""
        _check_mapping(value, path)
        for key, item in value.items():
            self.kind.check(item, f"{path}.{key}" if path else key, axes)


@dataclass(frozen=True)
class Plain:
    """Whatever JSON can say: what is kept with a file and read by people, or by somebody else's class."""

    def check(self, value: Any, path: str, axes: Axes) -> None:
        """See `Kind.check`."""
        if isinstance(value, Mapping):
            MappingOf(self).check(value, path, axes)
        elif isinstance(value, list | tuple):
            ListOf(self).check(value, path, axes)
        elif not isinstance(value, str | bool | int | float | None) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise _mismatch(path, value, "a plain value")


@dataclass(frozen=True)
class Opaque:
    """An object that its owner checks when it is handed over: weights, states of optimizers."""

    def check(self, value: Any, path: str, axes: Axes) -> None:
        """See `Kind.check`."""
        _check_mapping(value, path)


@dataclass(frozen=True)
class Record:
    """An object with fields of known names.

    Attributes:
        fields: What it must hold, in the order in which it is checked.
        optional: What it may hold as well: fields that earlier versions did not write.
        closed: Refuse further fields.
    """

    fields: Mapping[str, Kind]
    optional: Mapping[str, Kind] = field(default_factory=dict)
    closed: bool = False

    def check(self, value: Any, path: str, axes: Axes) -> None:
        """See `Kind.check`."""
        _check_mapping(value, path)
        kinds = {**self.fields, **self.optional}
        missing = [key for key in self.fields if key not in value]
        if missing:
            raise MismatchError(f"{path or 'it'} lacks {missing}")
        unknown = [key for key in value if key not in kinds]
        if unknown and self.closed:
            raise MismatchError(f"{path or 'it'} holds unknown {unknown}; expected {list(kinds)}")
        for key, kind in kinds.items():
            if key in value:
                kind.check(value[key], f"{path}.{key}" if path else key, axes)


def check(content: Any, kind: Kind, what: str, remedy: str = "Restore it or make it again.") -> None:
    """Looks a whole document through.

    Args:
        content: What was read.
        kind: What it must be.
        what: Names the file in the message.
        remedy: What to do about it, a sentence.

    Raises:
        InputError: Names the file, the first field that is wrong by its path (`tasks[3].steps`), what was found and
            what was expected.
    """
    try:
        kind.check(content, "", Axes())
    except MismatchError as fault:
        raise InputError(f"{what} is malformed: {fault}. {remedy}") from None
    except RecursionError:
        raise InputError(f"{what} is malformed: its lists or objects are nested too deeply. {remedy}") from None


def check_version(content: Any, supported: int, what: str) -> None:
    """Raises InputError unless `content` is an object with a schema number that this version can read."""
    number = content.get("schema") if isinstance(content, dict) else type(content).__name__
    if type(number) is not int or number < 1:
        raise InputError(
            f"{what} is malformed: expected an object with a schema number, found {number!r}. Make it again."
        )
    if number > supported:
        raise InputError(f"{what} has schema {number}; this version of mtorl reads up to {supported}. Upgrade mtorl.")


def _check_mapping(value: Any, path: str) -> None:
    if not isinstance(value, Mapping):
        raise _mismatch(path, value, "an object")
    odd = [key for key in value if not isinstance(key, str)]
    if odd:
        raise MismatchError(f"{path or 'it'} has the key {odd[0]!r}; expected strings")


def _mismatch(path: str, value: Any, expected: str) -> MismatchError:
    if isinstance(value, Mapping | list | tuple):
        found = f"{'an object' if isinstance(value, Mapping) else 'a list'} of {len(value)}"
    else:
        found = repr(value) if isinstance(value, str | bool | int | float | None) else f"a {type(value).__name__}"
    return MismatchError(f"{path or 'it'} is {found[:60]}; expected {expected}")
