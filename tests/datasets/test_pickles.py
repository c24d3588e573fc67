"""Pickles of strangers: arrays in plain containers come out, and nothing of what else they say is done."""

import contextlib
import copyreg
import io
import math
import os
import pickle
import struct
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtorl import InputError
from mtorl.datasets.importers import pickle_reader
from mtorl.datasets.importers.pickles import OPERATIONS, PickledArray, read_object_array, read_pickle

ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\x01btR"
"""An array without a state."""
F4 = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4I00\nI01\ntR(I3\nX\x01\x00\x00\x00<NNNI-1\nI-1\nI0\ntb"
OBJECTS = F4.replace(b"\x02\x00\x00\x00f4", b"\x02\x00\x00\x00O8").replace(b"<N", b"|N")


def read(content: bytes) -> Any:
    return read_pickle(io.BytesIO(content), "x")


def refused(content: bytes) -> str:
    started = time.monotonic()
    with pytest.raises(InputError) as error:
        read(content)
    assert time.monotonic() - started < 10
    return str(error.value)


def array(shape: bytes, kind: bytes, content: bytes, order: bytes = b"I00\n") -> bytes:
    return ARRAY + b"(I1\n" + shape + kind + order + content + b"tb."


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_gives_what_numpy_gives(protocol: int) -> None:
    numbers = {
        "matrix": np.arange(6.0).reshape(2, 3),
        "columns": np.arange(6, dtype=">i4").reshape(2, 3).T,
        "half": np.ones((0, 2), np.float16),
        "flags": np.array([True, False]),
    }
    content = np.array([numbers | {"task": "reach-v2", "scale": np.float32(0.5)}, [1, (2.5, None, -(2**70))]], object)
    first, second = read(pickle.dumps(content, protocol)).content
    assert second == [1, (2.5, None, -(2**70))]
    assert first.pop("task") == "reach-v2" and first.pop("scale") == 0.5
    assert first.keys() == numbers.keys()
    for name, values in numbers.items():
        found = first[name].content
        np.testing.assert_array_equal(found, values)
        assert found.dtype == (np.uint8 if name == "flags" else values.dtype)


class _Calls:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (_Calls(os.system, ("touch {}",)), f"{os.system.__module__}.system"),
        (_Calls(eval, ("open('{}', 'w')",)), ".eval"),
        (_Calls(exec, ("open('{}', 'w')",)), ".exec"),
        (_Calls(getattr, ("a", "b")), ".getattr"),
        (_Calls(np.load, ("{}",)), ".load"),
        (_Calls(OrderedDict, ()), "collections.OrderedDict"),
        (Path("a"), "pathlib"),
        (np.random.default_rng(0), "numpy.random"),
    ],
)
def test_foreign_names_are_refused_by_name(value: Any, named: str, protocol: int, tmp_path: Path) -> None:
    place = tmp_path / "was_here"
    if isinstance(value, _Calls) and value.call[1] and "{}" in str(value.call[1][0]):
        value = _Calls(value.call[0], (str(value.call[1][0]).format(place),))
    message = refused(pickle.dumps([np.zeros(2), {"a": value}], protocol))
    assert named in message and "Nothing of it was run" in message
    assert not place.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.", "_reconstruct.__globals__"),
        (b"\x80\x04X\x05\x00\x00\x00numpyX\x09\x00\x00\x00f2py.exec\x93.", "numpy.f2py.exec"),
        (b"\x80\x04X\x05\x00\x00\x00numpyX\x10\x00\x00\x00ndarray.__class_\x93.", "numpy.ndarray.__class_"),
        (b"cnumpy.f2py.crackfortran\nmyeval\n.", "numpy.f2py.crackfortran.myeval"),
        (b"cnumpy.core.multiarray_\nscalar\n.", "numpy.core.multiarray_.scalar"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"cnumpy\nnd\\`array\n.", "numpy.nd"),
        (b"(S'1'\nios\nsystem\n.", "STRING"),
        (b"(ios\nsystem\n.", "INST"),
        (b"(cnumpy\nndarray\no.", "OBJ"),
        (b"cnumpy\nndarray\n)\x81.", "NEWOBJ"),
        (b"cnumpy\nndarray\n)}\x92.", "NEWOBJ_EX"),
        (b"\x82\x01.", "EXT1"),
        (b"\x83\x01\x00.", "EXT2"),
        (b"\x84\x01\x00\x00\x00.", "EXT4"),
        (b"Pid\n.", "PERSID"),
        (b"]Q.", "BINPERSID"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"\x8f.", "EMPTY_SET"),
        (b"]2.", "DUP"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntC\x01btR.", "a class of its own"),
        (
            b"cnumpy\ndtype\n(X\x02\x00\x00\x00V8I00\nI01\ntR(I3\nX\x01\x00\x00\x00|NX\x01\x00\x00\x00a}I8\nI1\nI0\ntb.",
            "V8",
        ),
    ],
)
def test_operations_that_could_run_code_are_refused(content: bytes, named: str) -> None:
    assert named in refused(content)


def test_codes_for_registered_names_are_not_looked_up() -> None:
    copyreg.add_extension("os", "system", 0x7D)
    try:
        content = b"\x80\x02\x82\x7d(X\x01\x00\x00\x00.tR."
        assert "EXT1" in refused(content)
    finally:
        copyreg.remove_extension("os", "system", 0x7D)


@pytest.mark.parametrize(
    "content",
    [
        array(b"(I2\nt", F4, b"C\x04abcd"),  # fewer bytes than the shape takes
        array(b"(I-1\nt", F4, b"C\x04abcd"),
        array(b"(I1\nI-1\nI-1\nt", F4, b"C\x04abcd"),
        array(b"(L9223372036854775808L\nL2L\nt", F4, b"C\x04abcd"),
        array(b"(I4294967296\nI4294967296\nt", F4, b"C\x00"),
        array(b"(" + b"I1\n" * 65 + b"t", F4, b"C\x04abcd"),
        array(b"(I1\nt", F4, b"]"),  # a list where bytes belong, and the reverse
        array(b"(I1\nt", F4, b"N"),
        array(b"(I1\nt", OBJECTS, b"C\x08abcdefgh"),
        array(b"(I3\nt", OBJECTS, b"(I1\nl"),
        array(b"(I1\nt", b"X\x02\x00\x00\x00f4", b"C\x04abcd"),  # no type
        array(b"(F1.0\nt", F4, b"C\x04abcd"),
        array(b"I1\n", F4, b"C\x04abcd"),
        array(b"(I1\nt", F4, b"C\x04abcd")[:-1] + b"(I1\n(I1\nt" + F4 + b"I00\nC\x04abcdtb.",  # a second state
        F4 + b"(I3\nX\x01\x00\x00\x00>NNNI-1\nI-1\nI0\ntb.",
        b"}(X\x01\x00\x00\x00aI1\ntb.",  # a state for a dict
        b"(I1\nI2\ntI3\nb.",
        b"I1\n(I2\ntR.",  # a call of a number
        b"cnumpy\nndarray\n(I0\ntR.",
        b"cnumpy\nndarray\n(I0\ntb.",
        F4.replace(b"f4", b"f\xff") + b".",
        F4.replace(b"\x02\x00\x00\x00f4", b"\x40\x00\x00\x00" + b"(2,)f4," * 9 + b"f") + b".",
        b"]}I1\ns.",
        b"}I1\nI2\ns.",
        b"(I1\na.",
        b"(I1\ns.",
        b"t.",
        b"(t(.",
        b".",
        b"R.",
        b"b.",
        b"\x85.",
        b"(\x85.",
        b"(\x86.",
        b"g7\n.",
        b"q\x00.",
        b"]",
        b"",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xff]",
        b"\xff",
        b"\x80\x04\x93.",
        b"\x80\x04]]\x93.",
    ],
)
def test_malformed_pickles_are_refused(content: bytes) -> None:
    refused(content)


@pytest.mark.parametrize(
    "content",
    [
        b"B\xff\xff\xff\x7fa.",  # counts of what is not there
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7fa.",
        b"X\xff\xff\xff\xffa.",
        b"\x8b\xff\xff\xff\x7fa.",
        b"\x8b\xff\xff\xff\xffa.",
        b"L" + b"9" * 100_000 + b"L\n.",
        b"I" + b"9" * 100_000 + b"\n.",
        b"(" * (OPERATIONS + 2),
        b"]" + b"]q\x00h\x00a" * OPERATIONS,
    ],
)
def test_great_counts_take_no_memory(content: bytes) -> None:
    refused(content)


def test_great_places_in_the_memory_cost_nothing() -> None:
    assert read(b"]r\xff\xff\xff\x7f0.".replace(b"0", b"")) == []
    assert read(b"]p99999999999999999999\n.") == []


def test_values_in_themselves_do_no_harm() -> None:
    assert len(read(b"]q\x00h\x00a.")) == 1
    deep = read(b"]" + b"\x85" * 100_000 + b".")
    assert isinstance(deep, tuple)
    lists = read(
        b"]q\x00"
        + b"".join(b"](h" + bytes([i]) * 1 + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(60))
        + b"."
    )
    assert len(lists) == 2, "2^60 items, if anybody went through them"


def test_one_text_is_not_made_to_bytes_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_reader, "ENCODED", 1000)
    text = b"X" + struct.pack("<I", 100) + b"a" * 100 + b"q\x00"
    call = b"c_codecs\nencode\n(h\x00X\x06\x00\x00\x00latin1tR"
    assert read(text + call * 10 + b".") == b"a" * 100
    assert "made of texts" in refused(text + call * 11 + b".")


def test_mutated_pickles_are_read_or_refused() -> None:
    content = pickle.dumps(np.array([{"a": np.arange(6, dtype="f4").reshape(3, 2), "task": "x"}] * 2, object), 4)
    draw, count, whole = np.random.default_rng(0), 2000, 0
    for _ in range(count):
        changed = bytearray(content)
        for place in draw.integers(0, len(content), draw.integers(1, 5)):
            changed[place] = draw.integers(256)
        with contextlib.suppress(InputError):
            read(bytes(changed))
            whole += 1
    assert 0 < whole < count, "some are still pickles, some are none"


def test_files_of_object_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"a": np.ones(2)}, {"a": np.zeros(3)}], object), allow_pickle=True)
    first, second = read_object_array(path)
    assert first["a"].content.tolist() == [1, 1] and second["a"].content.tolist() == [0, 0, 0]

    content = path.read_bytes()
    for changed, message in (
        (content.replace(b"(2,)", b"(3,)"), r"holds 2 objects; its header says \(3,\)"),
        (content[:-1], "before seeing STOP"),
        (content[:60], "not understood"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, "65535 bytes"),
        (b"\x93NUMPY\x01\x00\xff\x0f" + b"(" * 4095, "not understood"),
        (b"\x93NUMPY\x09" + content[7:], "does not begin as an array"),
        (b"", "does not begin as an array"),
        (content[:128] + pickle.dumps([1, 2]), "another value than its header"),
    ):
        path.write_bytes(changed)
        with pytest.raises(InputError, match=message):
            read_object_array(path)
    np.save(path, np.ones(3))
    with pytest.raises(InputError, match="an array of numbers; expected an array of dicts"):
        read_object_array(path)


def test_arrays_keep_no_copy() -> None:
    content = pickle.dumps([np.ones(1000)] * 1000, 4)
    found = read(content)
    assert len(found) == 1000 and all(it is found[0] for it in found) and isinstance(found[0], PickledArray)
    assert math.isclose(found[0].content.sum(), 1000)
