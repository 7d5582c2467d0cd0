"""Plain Python data: exact types, tagged, in MessagePack; large bytes and what has a codec of its own out of band.

Scalars that MessagePack has stand for themselves; everything else is an array whose first item says what it is. Types
are matched exactly: a subclass may mean anything, so it is refused with advice rather than sent as its base.

Bounds hold both ways: depth, number of values, bytes of the tree (a received byte becomes up to some forty in memory).
References are not kept: a list that occurs twice arrives as two lists, one that contains itself is refused. Received
dictionaries and sets whose keys share hashes are refused, since filling them would take quadratic time.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from p2pnb.errors import CodecError, CorruptDataError, NotSupportedError, TooLargeError
from p2pnb.objects.codec import Blob, Codec, Packed
from p2pnb.objects.preview import MAX_TEXT_CHARS, cell, human_bytes, plural, shorten
from p2pnb.objects.records import is_namedtuple, rebuild_record, record_name
from p2pnb.objects.zones import build_zone, describe_zone
from p2pnb.protocol.wire import Preview

__all__ = ["MAX_VALUES", "PlainCodec", "Registry", "pack_plain", "unpack_plain"]

MAX_DEPTH: Final = 100  # far below Python's own recursion limit, which the caller's stack shares
MAX_VALUES: Final = 10_000_000
MAX_TREE_BYTES: Final = 64 * 1024 * 1024
MAX_DECIMAL_CHARS: Final = 10_000
MAX_EQUAL_HASHES: Final = 1000
_BUFFER_FROM_BYTES: Final = 16 * 1024  # bytes and text from this size on travel as buffers

_LIST, _TUPLE, _SET, _FROZENSET, _DICT, _INT, _TEXT, _COMPLEX, _BYTEARRAY, _MEMORYVIEW = range(10)
_DATETIME, _DATE, _TIME, _TIMEDELTA, _ZONE, _DECIMAL, _UUID, _RANGE, _SLICE, _RECORD = range(10, 20)
_BUFFER, _NESTED, _ELLIPSIS = range(20, 23)

_SCALARS: Final = frozenset({type(None), bool, float})  # always stand for themselves


class Registry(Protocol):
    """How plain data reaches the other codecs."""

    def pack(self, value: object) -> tuple[str, Packed]: ...

    def check(self, codec: str, note: bytes, lengths: Sequence[int]) -> None: ...

    def unpack(self, codec: str, note: bytes, buffers: Sequence[memoryview]) -> object: ...


class PlainCodec(Codec):
    """None, numbers, text, bytes, containers, dates, Decimal, UUID, dataclasses; containers of anything sendable."""

    name = "plain"

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def takes(self, value: object) -> bool:
        return type(value) in _WRITERS or _is_record(value) or isinstance(value, dt.tzinfo)

    def encode(self, value: object) -> Packed:
        return pack_plain(value, self._registry)

    def decode(self, note: bytes, buffers: Sequence[memoryview]) -> object:
        if note or not buffers:
            raise CorruptDataError("the received value lacks its parts")
        return unpack_plain(buffers[0], buffers[1:], self._registry)

    def check(self, note: bytes, lengths: Sequence[int]) -> None:
        if note or not lengths or lengths[0] > MAX_TREE_BYTES:
            raise CorruptDataError("the received value lacks its parts or is too complex")

    def type_name(self, value: object) -> str:
        return type(value).__qualname__

    def preview(self, value: Any) -> Preview:
        name = self.type_name(value)
        if isinstance(value, str):
            return Preview(name, plural(len(value), "character"), text=value[:MAX_TEXT_CHARS])
        if isinstance(value, bytes | bytearray):
            return Preview(name, human_bytes(len(value)), text=cell(bytes(value[:40])))
        if isinstance(value, list | tuple | dict | set | frozenset):
            return Preview(name, plural(len(value), "item"), text=shorten(cell(value, MAX_TEXT_CHARS), MAX_TEXT_CHARS))
        return Preview(name, cell(value), text=cell(value, MAX_TEXT_CHARS))


# ── writing ─────────────────────────────────────────────────────────────────────────────────────────
def pack_plain(value: object, registry: Registry) -> Packed:
    """Return `value` as a tree (first buffer) and the buffers it refers to."""
    writer = _Writer(registry)
    try:
        tree = msgspec.msgpack.encode(writer.write(value))
    except RecursionError:
        raise NotSupportedError(f"the value is nested deeper than {MAX_DEPTH}; flatten it") from None
    if len(tree) > MAX_TREE_BYTES:
        raise TooLargeError(
            f"this many single Python values take {human_bytes(len(tree))}, at most {human_bytes(MAX_TREE_BYTES)} are "
            "sent; put numbers into a numpy array and records into a DataFrame"
        )
    return Packed(b"", [(memoryview(tree),), *writer.buffers])


class _Writer:
    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.buffers: list[Blob] = []
        self._open: set[int] = set()  # containers being written, to find cycles
        self._values = 0

    def write(self, value: Any) -> Any:
        kind = type(value)
        if kind in _SCALARS:
            return value
        writer = _WRITERS.get(kind)
        if writer is not None:
            return writer(self, value)
        if isinstance(value, dt.tzinfo):
            return [_ZONE, *describe_zone(value)]
        if _is_record(value):
            return _write_record(self, value)
        codec, packed = self.registry.pack(value)
        first = len(self.buffers)
        self.buffers.extend(packed.buffers)
        return [_NESTED, codec, packed.note, first, len(packed.buffers)]

    def enter(self, value: Any) -> None:
        """Begin a container; `leave` ends it. A writer that raised is not used again, so nothing needs undoing."""
        if id(value) in self._open:
            raise NotSupportedError(f"this {type(value).__name__} contains itself; send it without the cycle")
        if len(self._open) >= MAX_DEPTH:
            raise NotSupportedError(f"the value is nested deeper than {MAX_DEPTH}; flatten it")
        self._open.add(id(value))

    def leave(self, value: Any) -> None:
        self._open.discard(id(value))

    def container(self, tag: int, value: Any) -> list[Any]:
        self.enter(value)
        node = self.items(tag, value if type(value) in (list, tuple) else list(value))
        self._open.discard(id(value))
        return node

    def items(self, tag: int, values: Sequence[Any]) -> list[Any]:
        self.count(len(values))
        kinds = set(map(type, values))
        if kinds <= _SCALARS:
            return [tag, *values]
        if len(kinds) == 1:  # one look-up for the whole list
            writer = _WRITERS.get(kinds.pop())
            if writer is not None:
                return [tag, *[writer(self, value) for value in values]]
        return [tag, *map(self.write, values)]

    def count(self, values: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise TooLargeError(
                f"more than {MAX_VALUES:,} single Python values can't be sent; put numbers into a numpy array and "
                "records into a DataFrame"
            )

    def raw(self, data: memoryview) -> int:
        self.buffers.append((data,))
        return len(self.buffers) - 1


def _is_record(value: object) -> bool:
    return (dataclasses.is_dataclass(value) and not isinstance(value, type)) or is_namedtuple(value)


def _write_record(writer: _Writer, value: Any) -> list[Any]:
    if is_namedtuple(value):
        names, values = list(value._fields), list(value)
    else:
        names = [field.name for field in dataclasses.fields(value)]
        try:
            values = [getattr(value, name) for name in names]
        except AttributeError as error:
            raise NotSupportedError(f"this {type(value).__qualname__} lacks a field ({error}); set it first") from error
    writer.enter(value)
    node = [_RECORD, record_name(type(value)), names, writer.items(_LIST, values)]
    writer.leave(value)
    return node


def _write_dict(writer: _Writer, value: dict[Any, Any]) -> Any:
    writer.enter(value)
    node = [_DICT, writer.items(_LIST, list(value)), writer.items(_LIST, list(value.values()))]
    writer.leave(value)
    return node


def _write_slice(writer: _Writer, value: slice) -> Any:
    writer.enter(value)
    node = [_SLICE, *map(writer.write, (value.start, value.stop, value.step))]
    writer.leave(value)
    return node


def _write_int(writer: _Writer, value: int) -> Any:
    if -(2**63) <= value < 2**64:
        return value
    return [_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)]


def _write_text(writer: _Writer, value: str) -> Any:
    if len(value) < _BUFFER_FROM_BYTES:
        try:
            value.encode()
        except UnicodeEncodeError:
            return [_TEXT, value.encode("utf-8", "surrogatepass")]
        return value
    return [_BUFFER, _TEXT, writer.raw(memoryview(value.encode("utf-8", "surrogatepass")))]


def _write_bytes(writer: _Writer, value: bytes) -> Any:
    return value if len(value) < _BUFFER_FROM_BYTES else [_BUFFER, 0, writer.raw(memoryview(value))]


def _write_bytearray(writer: _Writer, value: bytearray) -> Any:
    if len(value) < _BUFFER_FROM_BYTES:
        return [_BYTEARRAY, bytes(value)]
    return [_BUFFER, _BYTEARRAY, writer.raw(memoryview(value))]


def _write_memoryview(writer: _Writer, value: memoryview) -> Any:
    if value.ndim != 1 or value.format not in ("B", "b", "c"):
        raise NotSupportedError("a memoryview of anything but bytes can't be sent; send numpy.asarray(view)")
    view = value.cast("B") if value.c_contiguous else memoryview(bytes(value))
    return [_BUFFER, _MEMORYVIEW, writer.raw(view)]


def _write_decimal(writer: _Writer, value: decimal.Decimal) -> Any:
    text = str(value)
    if len(text) > MAX_DECIMAL_CHARS:
        raise NotSupportedError(f"a Decimal of {len(text):,} characters can't be sent; send str(value)")
    return [_DECIMAL, text]


def _write_datetime(writer: _Writer, value: dt.datetime) -> Any:
    parts = [value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, value.fold]
    return [_DATETIME, *parts, _write_zone(value.tzinfo)]


def _write_time(writer: _Writer, value: dt.time) -> Any:
    parts = [value.hour, value.minute, value.second, value.microsecond, value.fold]
    return [_TIME, *parts, _write_zone(value.tzinfo)]


def _write_zone(zone: dt.tzinfo | None) -> Any:
    return None if zone is None else describe_zone(zone)


_WRITERS: Final[dict[type, Callable[[_Writer, Any], Any]]] = {
    type(None): lambda _, value: value,
    bool: lambda _, value: value,
    float: lambda _, value: value,
    int: _write_int,
    str: _write_text,
    bytes: _write_bytes,
    bytearray: _write_bytearray,
    memoryview: _write_memoryview,
    complex: lambda _, value: [_COMPLEX, value.real, value.imag],
    list: lambda writer, value: writer.container(_LIST, value),
    tuple: lambda writer, value: writer.container(_TUPLE, value),
    set: lambda writer, value: writer.container(_SET, value),
    frozenset: lambda writer, value: writer.container(_FROZENSET, value),
    dict: _write_dict,
    dt.datetime: _write_datetime,
    dt.date: lambda _, value: [_DATE, value.toordinal()],
    dt.time: _write_time,
    dt.timedelta: lambda _, value: [_TIMEDELTA, value.days, value.seconds, value.microseconds],
    decimal.Decimal: _write_decimal,
    uuid.UUID: lambda _, value: [_UUID, value.bytes],
    range: lambda writer, value: [_RANGE, *[_write_int(writer, n) for n in (value.start, value.stop, value.step)]],
    slice: _write_slice,
    type(...): lambda _, value: [_ELLIPSIS],
}


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────
def unpack_plain(tree: memoryview, buffers: Sequence[memoryview], registry: Registry) -> object:
    """Rebuild a value from untrusted bytes; raises `CorruptDataError`."""
    if len(tree) > MAX_TREE_BYTES:
        raise CorruptDataError("the received value is too complex")
    reader = _Reader(buffers, registry)
    try:
        return reader.read(msgspec.msgpack.decode(tree), 0)
    except CodecError:
        raise
    except (
        msgspec.MsgspecError,
        RecursionError,
        ValueError,
        TypeError,
        OverflowError,
        LookupError,
        ArithmeticError,
    ) as error:
        raise CorruptDataError(f"the received value is malformed: {shorten(str(error), 200)}") from error


_STANDS_FOR_ITSELF: Final = frozenset({type(None), bool, int, float, str, bytes})


class _Reader:
    def __init__(self, buffers: Sequence[memoryview], registry: Registry) -> None:
        self.buffers = buffers
        self.registry = registry
        self._taken: set[int] = set()

    def take(self, first: int, count: int) -> Sequence[memoryview]:
        """Return buffers, each of them once only: a few bytes that name a buffer again would have it copied again."""
        numbers = range(first, first + count)
        if first < 0 or count < 0 or first + count > len(self.buffers) or not self._taken.isdisjoint(numbers):
            raise ValueError("a part that did not arrive, or that is used twice")
        self._taken.update(numbers)
        return self.buffers[first : first + count]

    def read(self, node: Any, depth: int) -> Any:
        if type(node) in _STANDS_FOR_ITSELF:
            return node
        if type(node) is not list or not node or type(node[0]) is not int:
            raise ValueError("a value of unknown kind")
        if depth > 2 * MAX_DEPTH + 2:  # a dictionary's items are two levels below it
            raise ValueError("nested too deep")
        tag = node[0]
        if tag == _LIST:
            return self.items(node, depth)
        if tag == _DICT:
            _, names, values = node
            keys, entries = self.read_list(names, depth), self.read_list(values, depth)
            if len(keys) != len(entries):
                raise ValueError("a dictionary with more keys than values")
            _refuse_collisions(keys)
            return dict(zip(keys, entries, strict=True))
        if tag == _TUPLE:
            return tuple(self.items(node, depth))
        return self.read_other(tag, node, depth)

    def items(self, node: list[Any], depth: int) -> list[Any]:
        del node[0]
        if set(map(type, node)) <= _STANDS_FOR_ITSELF:
            return node
        return [self.read(item, depth + 1) for item in node]

    def read_list(self, node: Any, depth: int) -> list[Any]:
        if type(node) is not list or not node or node[0] != _LIST:
            raise ValueError("no list where one must be")
        return self.items(node, depth + 1)

    def read_other(self, tag: int, node: list[Any], depth: int) -> Any:
        match node:
            case [21, str(codec), bytes(note), int(first), int(count)]:
                buffers = self.take(first, count)
                self.registry.check(codec, note, [len(buffer) for buffer in buffers])
                return self.registry.unpack(codec, note, buffers)
            case [20, int(kind), int(number)]:
                return _from_buffer(kind, self.take(number, 1)[0])
            case [19, str(name), list(names), values]:
                fields = self.read_list(values, depth)
                if not all(type(field) is str for field in names) or len(set(names)) != len(names):
                    raise ValueError("a record with impossible field names")
                return rebuild_record(name, dict(zip(names, fields, strict=True)))
            case [10, *parts, zone] if len(parts) == 8:
                return dt.datetime(*parts[:7], fold=parts[7]).replace(tzinfo=_read_zone(zone))  # noqa: DTZ001
            case [12, *parts, zone] if len(parts) == 5:
                return dt.time(*parts[:4], fold=parts[4]).replace(tzinfo=_read_zone(zone))
            case [14, *parts]:
                return build_zone(parts)
            case [18, start, stop, step]:
                return slice(self.read(start, depth + 1), self.read(stop, depth + 1), self.read(step, depth + 1))
            case [17, *bounds]:
                return range(*[self.read(bound, depth + 1) for bound in bounds])
            case [2 | 3, *_]:
                items = self.items(node, depth)
                _refuse_collisions(items)
                return set(items) if tag == _SET else frozenset(items)
            case [5, bytes(data)]:
                return int.from_bytes(data, "little", signed=True)
            case [6, bytes(data)]:
                return data.decode("utf-8", "surrogatepass")
            case [7, float(real), float(imag)]:
                return complex(real, imag)
            case [8, bytes(data)]:
                return bytearray(data)
            case [11, int(day)]:
                return dt.date.fromordinal(day)
            case [13, int(days), int(seconds), int(micros)]:
                return dt.timedelta(days, seconds, micros)
            case [15, str(text)] if len(text) <= MAX_DECIMAL_CHARS:
                return decimal.Decimal(text)
            case [16, bytes(data)]:
                return uuid.UUID(bytes=data)
            case [22]:
                return ...
        raise ValueError(f"a value of kind {tag} with impossible parts")


def _read_zone(node: Any) -> dt.tzinfo | None:
    if node is None:
        return None
    if type(node) is not list:
        raise ValueError("a time zone that is none")
    return build_zone(node)


def _from_buffer(kind: int, buffer: memoryview) -> object:
    if kind == 0:
        return bytes(buffer)
    if kind == _TEXT:
        return str(buffer, "utf-8", "surrogatepass")
    if kind == _BYTEARRAY:
        return bytearray(buffer)
    if kind == _MEMORYVIEW:
        return buffer
    raise ValueError("a buffer of unknown kind")


def _refuse_collisions(keys: Sequence[Any]) -> None:
    if len(keys) > MAX_EQUAL_HASHES and len(keys) - len(set(map(hash, keys))) > MAX_EQUAL_HASHES:
        raise ValueError("keys that share their hashes")
