"""Which codec takes a value, and which one a received name means.

Built-in codecs come first and can't be replaced: what a name on the wire means must not depend on what is installed.
Then those given to `register_codec`, then those that installed packages offer under the entry-point group
``p2pnb.codecs`` (the entry point's name is the codec's; it yields a `Codec` or a class or function that makes one). A
peer's message can load an entry point only by its exact name, and only one that somebody installed for this purpose.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from p2pnb.errors import CodecError, CorruptDataError, DiskFullError, NotSupportedError, UsageError
from p2pnb.objects.advice import advice_for
from p2pnb.objects.arrays import ArrayCodec
from p2pnb.objects.arrow import ArrowCodec
from p2pnb.objects.codec import Codec, Encoded, Head, Packed
from p2pnb.objects.images import FigureCodec, ImageCodec
from p2pnb.objects.pandas_frames import PandasCodec
from p2pnb.objects.plain import PlainCodec
from p2pnb.objects.polars_frames import PolarsCodec
from p2pnb.objects.preview import cell, safe_preview

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["ENTRY_POINT_GROUP", "decode", "encode", "layout", "register_codec"]

ENTRY_POINT_GROUP: Final = "p2pnb.codecs"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.\-]{0,63}")


class _Codecs:
    """The codecs of this process, in the order they are asked; also how plain data reaches the others."""

    def __init__(self) -> None:
        plain = PlainCodec(self)
        built_in: list[Codec] = [
            plain,
            PandasCodec(self),
            PolarsCodec(),
            ArrayCodec(self),
            ImageCodec(),
            FigureCodec(),
            ArrowCodec(),  # last: it takes whatever exports Arrow
        ]
        self._built_in: Final = {codec.name: codec for codec in built_in}
        self._registered: Final[dict[str, Codec]] = {}
        self._lock = threading.Lock()

    def register(self, codec: Codec) -> None:
        if not isinstance(codec, Codec):
            raise UsageError("register_codec takes an instance of a subclass of p2pnb.objects.Codec")
        if not _NAME.fullmatch(getattr(codec, "name", "")):
            raise UsageError("a codec's name is made of lower-case letters, digits, dots and dashes, at most 64")
        if codec.name in self._built_in:
            raise UsageError(f"{codec.name!r} is a codec of p2pnb itself; choose another name")
        with self._lock:
            self._registered[codec.name] = codec

    def for_value(self, value: object) -> Codec:
        with self._lock:
            registered = list(self._registered.values())
        exact = type(value)
        plain = self._built_in["plain"]
        if exact.__module__ != "builtins":  # a registered codec may take a dataclass or a subclass for itself
            for codec in registered:
                if codec.takes(value):
                    return codec
        elif plain.takes(value):
            return plain
        for codec in self._built_in.values():
            if codec.takes(value):
                return codec
        for codec in [*registered, *self._load_all()]:
            if codec.takes(value):
                return codec
        raise NotSupportedError(f"a value of type {_full_name(exact)} can't be sent: {advice_for(value)}")

    def by_name(self, name: str) -> Codec:
        codec = self._built_in.get(name) or self._registered.get(name)
        if codec is None and _NAME.fullmatch(name):
            for entry in _entry_points(group=ENTRY_POINT_GROUP, name=name):
                codec = self._load(entry)
                if codec is not None:
                    break
        if codec is None:
            raise NotSupportedError(
                f"this object was sent with the codec {cell(name, 64)!r}, which is not known here; install the package "
                "that brings it, or call p2pnb.register_codec with it, and ask for the object again"
            )
        return codec

    def _load_all(self) -> Iterator[Codec]:
        for entry in _entry_points(group=ENTRY_POINT_GROUP):
            if entry.name not in self._built_in and entry.name not in self._registered:
                codec = self._load(entry)
                if codec is not None:
                    yield codec

    def _load(self, entry: EntryPoint) -> Codec | None:
        try:
            found = entry.load()
            codec = found if isinstance(found, Codec) else found()
        except Exception as error:  # a broken plug-in must not take sending down, but must be heard of
            raise NotSupportedError(
                f"the codec {entry.name!r} of an installed package does not load: {error}"
            ) from error
        if not isinstance(codec, Codec) or codec.name != entry.name:
            return None
        with self._lock:
            return self._registered.setdefault(codec.name, codec)

    # What plain data and object columns need: Registry of plain.py.
    def pack(self, value: object) -> tuple[str, Packed]:
        codec = self.for_value(value)
        return codec.name, codec.encode(value)

    def check(self, codec: str, note: bytes, lengths: Sequence[int]) -> None:
        self.by_name(codec).check(note, lengths)

    def unpack(self, codec: str, note: bytes, buffers: Sequence[memoryview]) -> object:
        return self.by_name(codec).decode(note, buffers)


def _entry_points(**which: str) -> Iterable[EntryPoint]:
    from importlib import metadata  # slow to import, rarely needed

    found: Iterable[EntryPoint] = metadata.entry_points(**which)  # type: ignore[assignment]
    return found


def _full_name(kind: type) -> str:
    plain = kind.__module__ in ("builtins", "__main__")
    return kind.__qualname__ if plain else f"{kind.__module__}.{kind.__qualname__}"


_codecs = _Codecs()


def register_codec(codec: Codec) -> None:
    """Add a codec for types p2pnb does not know; both sides need it. Raises `UsageError`."""
    _codecs.register(codec)


def encode(value: object) -> Encoded:
    """Return `value` ready to travel; may take long, so not for an event loop.

    Raises `NotSupportedError` with what to send instead, or `TooLargeError`. The result views the value's own memory.
    """
    codec = _codecs.for_value(value)
    packed = codec.encode(value)
    head = Head.pack(packed)
    name = codec.type_name(value)
    size_bytes = len(head) + sum(len(piece) for part in packed.buffers for piece in part)
    preview = safe_preview(lambda: codec.preview(value), name, size_bytes)
    return Encoded(codec.name, head, tuple(packed.buffers), preview.type, preview)


def layout(codec: str, head: bytes, content_bytes: int) -> None:
    """Check an announced object's head against its announced content size, before any content is allocated.

    Raises `CorruptDataError` for a head that can't be true, `NotSupportedError` for a codec that is not known here.
    """
    parsed = Head.parse(head)
    parsed.ranges(content_bytes)
    known = _codecs.by_name(codec)
    with _Border():
        known.check(parsed.note, parsed.lengths)


def decode(codec: str, head: bytes, content: memoryview) -> object:
    """Rebuild a value from what a peer sent; may take long, so not for an event loop.

    `content` is the whole content in this process's own memory, writable, starting at a multiple of 64 bytes; the value
    may keep using it. Raises `CorruptDataError`, `NotSupportedError`, or `DiskFullError` when memory runs out.
    """
    parsed = Head.parse(head)
    view = content.cast("B")
    ranges = parsed.ranges(len(view))
    known = _codecs.by_name(codec)
    with _Border():
        known.check(parsed.note, parsed.lengths)
        return known.decode(parsed.note, [view[start:end] for start, end in ranges])


class _Border:
    """Where foreign exceptions become ours: whatever a library says about received bytes, the bytes are at fault."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, CodecError):
            return
        if isinstance(error, MemoryError):
            raise DiskFullError("this machine has not enough memory for the received object") from error
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":  # polars' Rust panics
            raise CorruptDataError(f"the received object is damaged: {cell(error, 200)}") from error
