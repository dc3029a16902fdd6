"""Tensors against bytes written by hand, there and back, and malformed in every way."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recsys.serving.oip.errors import ProtocolError
from recsys.serving.oip.tensors import (
    MAX_ELEMENTS,
    NUMBERS,
    Tensor,
    byte_array,
    tensor_from_bytes,
    tensor_from_json,
    tensor_to_bytes,
    tensor_to_json,
)


def test_bytes_are_a_length_and_what_it_counts() -> None:
    raw = b"\x01\x00\x00\x00" + b"7" + b"\x00\x00\x00\x00" + b"\x03\x00\x00\x00" + "ä!".encode()
    found = tensor_from_bytes("user", "BYTES", [3], raw)
    assert list(found.values) == [b"7", b"", "ä!".encode()]
    assert tensor_to_bytes(found) == raw
    assert tensor_to_json(found) == ["7", "", "ä!"]


@pytest.mark.parametrize(
    ("datatype", "raw", "wanted"),
    [
        ("BOOL", b"\x01\x00", [True, False]),
        ("UINT8", b"\xff\x01", [255, 1]),
        ("UINT16", b"\x01\x02\xff\xff", [513, 65535]),
        ("INT8", b"\xff\x7f", [-1, 127]),
        ("INT16", b"\x00\x80\xff\x7f", [-32768, 32767]),
        ("UINT32", b"\x00\x00\x00\x80\x01\x00\x00\x00", [2**31, 1]),
        ("INT32", b"\xfe\xff\xff\xff\x00\x00\x00\x01", [-2, 2**24]),
        ("UINT64", b"\xff" * 8 + b"\x01" + b"\x00" * 7, [2**64 - 1, 1]),
        ("INT64", b"\x00" * 7 + b"\x80" + b"\x02" + b"\x00" * 7, [-(2**63), 2]),
        ("FP16", b"\x00\x3c\x00\xc0", [1.0, -2.0]),
        ("FP32", b"\x00\x00\x80\x3f\x00\x00\x20\xc1", [1.0, -10.0]),
        ("FP64", struct.pack("<dd", 0.1, -1e300), [0.1, -1e300]),
    ],
)
def test_numbers_are_little_endian(datatype: str, raw: bytes, wanted: list[Any]) -> None:
    found = tensor_from_bytes("x", datatype, [2], raw)
    assert found.values.tolist() == wanted
    assert tensor_to_bytes(found) == raw
    of_json = tensor_from_json("x", datatype, [2], wanted)
    assert of_json.values.dtype == NUMBERS[datatype]
    assert tensor_to_bytes(of_json) == raw
    assert tensor_to_json(of_json) == wanted


@given(
    datatype=st.sampled_from(sorted(NUMBERS)),
    shape=arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4),
    data=st.data(),
)
def test_numbers_there_and_back(datatype: str, shape: tuple[int, ...], data: st.DataObject) -> None:
    dtype = NUMBERS[datatype]
    options: dict[str, Any] = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    values = data.draw(arrays.arrays(dtype, shape, elements=arrays.from_dtype(dtype, **options)))
    raw = tensor_to_bytes(Tensor("x", datatype, shape, values.reshape(-1)))
    assert raw == values.tobytes()
    np.testing.assert_array_equal(
        tensor_from_bytes("x", datatype, list(shape), raw).values, values.reshape(-1)
    )
    for written in (values.reshape(-1).tolist(), values.tolist()):
        found = tensor_from_json("x", datatype, list(shape), written)
        assert found.shape == shape
        assert tensor_to_bytes(found) == raw


@given(st.lists(st.binary(max_size=9), max_size=9))
def test_byte_strings_there_and_back(values: list[bytes]) -> None:
    raw = tensor_to_bytes(Tensor("x", "BYTES", (len(values),), byte_array(values)))
    assert len(raw) == sum(4 + len(value) for value in values)
    assert list(tensor_from_bytes("x", "BYTES", [len(values)], raw).values) == values


@given(raw=st.binary(max_size=40), n=st.integers(0, 6))
def test_any_bytes_are_a_tensor_or_one_line(raw: bytes, n: int) -> None:
    try:
        found = tensor_from_bytes("x", "BYTES", [n], raw)
    except ProtocolError as error:
        said = str(error)
    else:
        assert tensor_to_bytes(found) == raw
        return
    assert said.startswith("input 'x': ")


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=12,
)


@given(datatype=st.sampled_from([*sorted(NUMBERS), "BYTES", "BF16", ""]), shape=_ANYTHING, data=_ANYTHING)
def test_any_json_is_a_tensor_or_one_line(datatype: str, shape: Any, data: Any) -> None:
    try:
        found = tensor_from_json("x", datatype, shape, data)
    except ProtocolError as error:
        said = str(error)
    else:
        assert found.shape == tuple(shape)
        assert len(found.values) == np.prod(shape)
        return
    assert said.startswith("input 'x': ")


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (None, "shape must be a list of 1 to 8 sizes"),
        ([], "shape must be a list of 1 to 8 sizes"),
        ([1] * 9, "shape must be a list of 1 to 8 sizes"),
        ([-1], "sizes of a shape are whole numbers from 0 to"),
        ([True], "sizes of a shape are whole numbers from 0 to"),
        ([1.0], "sizes of a shape are whole numbers from 0 to"),
        ([2**62], "sizes of a shape are whole numbers from 0 to"),
        ([MAX_ELEMENTS, 2], "holds 2097152 elements; 1048576 are the most"),
        ([2**16, 2**16, 2**16, 2**16], "holds 18446744073709551616 elements"),  # 0 in 64 bits
        ([3], "takes 24 bytes, binary_data_size is 8"),
        ([0], "takes 0 bytes, binary_data_size is 8"),
        ([0, 7], "takes 0 bytes, binary_data_size is 8"),
    ],
)
def test_shapes_that_are_refused(shape: Any, said: str) -> None:
    with pytest.raises(ProtocolError, match="^input 'x': ") as caught:
        tensor_from_bytes("x", "INT64", shape, b"\x00" * 8)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("datatype", "raw", "said"),
    [
        ("BF16", b"\x00\x00", "datatype 'BF16' is none of BOOL,"),
        ("BOOL", b"\x02", "bytes of BOOL are 0 or 1"),
        ("BYTES", b"\x01\x00\x00", "1 elements of BYTES take 4 bytes or more, binary_data_size is 3"),
        ("BYTES", b"\x02\x00\x00\x00a", "element 0 has 2 bytes, 1 are left"),
        ("BYTES", b"\xff\xff\xff\xffa", "element 0 has 4294967295 bytes, 1 are left"),
        ("BYTES", b"\x00\x00\x00\x00a", "1 bytes are left behind its 1 elements"),
    ],
)
def test_bytes_that_are_refused(datatype: str, raw: bytes, said: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        tensor_from_bytes("x", datatype, [1], raw)
    assert said in str(caught.value)


def test_a_length_that_reaches_over_the_next_one() -> None:
    with pytest.raises(ProtocolError, match="no length before element 1: its bytes are at an end"):
        tensor_from_bytes("x", "BYTES", [2], b"\x03\x00\x00\x00abc" + b"z")


@pytest.mark.parametrize(
    ("datatype", "data", "said"),
    [
        ("INT64", [1, True], "elements of INT64 are whole numbers"),
        ("INT64", [1, 1.0], "elements of INT64 are whole numbers"),
        ("INT64", [1, "1"], "elements of INT64 are whole numbers"),
        ("INT64", [1, None], "elements of INT64 are whole numbers"),
        ("INT64", [0, 2**63], "elements of INT64 are from -9223372036854775808 to"),
        ("UINT8", [0, -1], "elements of UINT8 are from 0 to 255"),
        ("BOOL", [True, 1], "elements of BOOL are true or false"),
        ("FP32", [1.0, True], "elements of FP32 are numbers"),
        ("FP16", [1.0, 70000], "an element is too large for FP16"),
        ("FP32", [1.0, 1e39], "an element is too large for FP32"),
        ("FP64", [1.0, float("inf")], "an element is too large for FP64"),
        ("FP64", [1.0, 10**400], "an element is too large for FP64"),
        ("BYTES", ["a", 1], "elements of BYTES are strings in JSON"),
        ("BYTES", "ab", "data must be a list"),
        ("BYTES", ["a"], "shape [2] holds 2 elements, data has 1"),
        ("BYTES", [["a", "b"]], "data is nested otherwise than its shape [2]"),
        ("BYTES", ["a", ["b"]], "data is nested deeper than its shape [2]"),
    ],
)
def test_elements_that_are_refused(datatype: str, data: Any, said: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        tensor_from_json("x", datatype, [2], data)
    assert said in str(caught.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_json_never_holds_what_it_lacks(number: float) -> None:
    tensor = Tensor("score", "FP32", (1,), np.array([number], dtype=np.float32))
    with pytest.raises(ProtocolError, match="output 'score' holds numbers that JSON lacks"):
        tensor_to_json(tensor)
    assert len(tensor_to_bytes(tensor)) == 4


def test_bytes_that_are_no_text_are_answered_as_bytes_alone() -> None:
    with pytest.raises(ProtocolError, match="ask for it with binary_data=true"):
        tensor_to_json(Tensor("item", "BYTES", (1,), byte_array([b"\xff"])))
