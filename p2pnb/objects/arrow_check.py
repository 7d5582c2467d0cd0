"""Look through a received Arrow IPC stream before pyarrow does.

pyarrow's reader instantiates extension types named in the schema, expands compressed buffers and follows shared parts
of a schema as often as they are mentioned; all of that happens before its `validate` could be called. So this module
walks the messages itself, in Python, where a wrong offset is an exception: framing, message kinds, the fields of the
schema, the buffers of every batch. It accepts what our own writer emits and little else:

* little-endian, metadata version 5, one schema, then dictionary and record batches; no tensors, no deltas;
* no extension types and no run-end encoding (a million rows in a hundred bytes), at any depth;
* no compressed bodies; buffers lie in order inside their body, 8-byte aligned, and don't overlap;
* bounded fields, nesting and batches.

The layout is that of the Arrow columnar format's `Message.fbs` and `Schema.fbs`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from p2pnb.errors import CorruptDataError

__all__ = ["check_stream"]

MAX_FIELDS: Final = 100_000  # nested ones counted each time they are mentioned
MAX_DEPTH: Final = 32  # Arrow itself stops at 64
MAX_MESSAGES: Final = 1_000_000
MAX_METADATA_BYTES: Final = 64 * 1024 * 1024  # of one message: 100,000 columns with their buffers
MAX_KEY_VALUES: Final = 1_000

_CONTINUATION: Final = 0xFFFFFFFF
_METADATA_V5: Final = 4
_SCHEMA, _DICTIONARY, _RECORD = 1, 2, 3
_EXTENSION_PREFIX: Final = b"ARROW:extension:"
# Type union members: Null 1, Int 2, FloatingPoint 3, Binary 4, Utf8 5, Bool 6, Decimal 7, Date 8, Time 9, Timestamp 10,
# Interval 11, List 12, Struct 13, Union 14, FixedSizeBinary 15, FixedSizeList 16, Map 17, Duration 18, LargeBinary 19,
# LargeUtf8 20, LargeList 21, RunEndEncoded 22, BinaryView 23, Utf8View 24, ListView 25, LargeListView 26
_TYPES: Final = frozenset(range(1, 27)) - {22}


class _Malformed(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Table:
    """One FlatBuffers table; every read is checked against the message's bytes."""

    data: memoryview
    at: int

    def number(self, slot: int, form: str, default: int = 0) -> int:
        at = self._field(slot)
        return default if at is None else _read(self.data, at, form)

    def table(self, slot: int) -> _Table | None:
        at = self._field(slot)
        return None if at is None else _Table(self.data, at + _read(self.data, at, "I"))

    def tables(self, slot: int, limit: int) -> Iterator[_Table]:
        start, count = self._vector(slot)
        if count > limit:
            raise _Malformed(f"{count} parts where at most {limit} may be")
        for number in range(count):
            at = start + 4 * number
            yield _Table(self.data, at + _read(self.data, at, "I"))

    def string(self, slot: int) -> bytes:
        start, count = self._vector(slot)
        return bytes(_slice(self.data, start, count))

    def pairs(self, slot: int) -> Iterator[tuple[int, int]]:
        start, count = self._vector(slot)
        yield from struct.iter_unpack("<qq", _slice(self.data, start, 16 * count))

    def _vector(self, slot: int) -> tuple[int, int]:
        at = self._field(slot)
        if at is None:
            return 0, 0
        at += _read(self.data, at, "I")
        return at + 4, _read(self.data, at, "I")

    def _field(self, slot: int) -> int | None:
        vtable = self.at - _read(self.data, self.at, "i")
        entry = 4 + 2 * slot
        if entry + 2 > _read(self.data, vtable, "H"):
            return None
        offset = _read(self.data, vtable + entry, "H")
        return self.at + offset if offset else None


def _read(data: memoryview, at: int, form: str) -> int:
    if at < 0:  # struct would count from the end
        raise _Malformed("an offset before the message")
    return int(struct.unpack_from("<" + form, data, at)[0])


def _slice(data: memoryview, start: int, length: int) -> memoryview:
    if start < 0 or length < 0 or start + length > len(data):
        raise _Malformed("a vector beyond its message")
    return data[start : start + length]


def check_stream(stream: memoryview) -> None:
    """Raise `CorruptDataError` unless `stream` is an Arrow IPC stream of the plain kind we send."""
    try:
        _check_stream(stream)
    except (_Malformed, struct.error, OverflowError, UnicodeDecodeError) as error:
        raise CorruptDataError(f"the received table is not a plain Arrow stream: {error}") from error


def _check_stream(stream: memoryview) -> None:
    position = messages = 0
    ended = False
    while position < len(stream):
        if _read(stream, position, "I") != _CONTINUATION:
            raise _Malformed("no message where one must begin")
        length = _read(stream, position + 4, "i")
        position += 8
        if length == 0:
            ended = True
            break
        if not 0 < length <= MAX_METADATA_BYTES or length % 8:
            raise _Malformed(f"a message of {length} bytes")
        metadata = _slice(stream, position, length)
        position += length
        message = _Table(metadata, _read(metadata, 0, "I"))
        body = message.number(3, "q")
        if not 0 <= body <= len(stream) - position or body % 8:
            raise _Malformed(f"a message body of {body} bytes where {len(stream) - position} are left")
        position += body
        _check_message(message, messages, body)
        messages += 1
        if messages > MAX_MESSAGES:
            raise _Malformed("too many batches")
    if position != len(stream) or not ended:
        raise _Malformed("cut off, or bytes after its end")
    if not messages:
        raise _Malformed("no schema")


def _check_message(message: _Table, number: int, body: int) -> None:
    if message.number(0, "h") != _METADATA_V5:
        raise _Malformed("unknown metadata version")
    kind, header = message.number(1, "B"), message.table(2)
    if header is None or (kind == _SCHEMA) != (number == 0):
        raise _Malformed("messages out of order")
    if kind == _SCHEMA:
        if body:
            raise _Malformed("a schema with a body")
        _check_schema(header)
    elif kind == _RECORD:
        _check_batch(header, body)
    elif kind == _DICTIONARY:
        batch = header.table(1)
        if batch is None or header.number(2, "B"):
            raise _Malformed("a partial dictionary")
        _check_batch(batch, body)
    else:
        raise _Malformed(f"message of kind {kind}")


def _check_schema(schema: _Table) -> None:
    if schema.number(0, "h"):
        raise _Malformed("big-endian data")
    _check_metadata(schema, 2)
    budget = [MAX_FIELDS]
    for field in schema.tables(1, MAX_FIELDS):
        _check_field(field, 1, budget)


def _check_field(field: _Table, depth: int, budget: list[int]) -> None:
    budget[0] -= 1
    if budget[0] < 0:
        raise _Malformed(f"more than {MAX_FIELDS} fields")
    if depth > MAX_DEPTH:
        raise _Malformed(f"nested deeper than {MAX_DEPTH}")
    kind = field.number(2, "B")
    if kind not in _TYPES:
        raise _Malformed(f"a column of type {kind}")
    field.string(0).decode()  # polars panics on names that are not UTF-8
    _check_metadata(field, 6)
    for child in field.tables(5, MAX_FIELDS):
        _check_field(child, depth + 1, budget)


def _check_metadata(owner: _Table, slot: int) -> None:
    for entry in owner.tables(slot, MAX_KEY_VALUES):
        if entry.string(0).startswith(_EXTENSION_PREFIX):
            raise _Malformed("an extension type")


def _check_batch(batch: _Table, body: int) -> None:
    if batch.number(0, "q") < 0:
        raise _Malformed("a negative number of rows")
    if batch.table(3) is not None:
        raise _Malformed("compressed data")
    for length, nulls in batch.pairs(1):
        if not 0 <= nulls <= length:
            raise _Malformed("impossible counts")
    end = 0
    for start, length in batch.pairs(2):
        if length < 0 or start < end or start % 8 or start + length > body:
            raise _Malformed("buffers that overlap or pass their body")
        end = start + length
