"""pandas frames, series and indexes: every column as Arrow or numpy memory, everything else in our own typed notes.

pyarrow could describe a frame in the schema's ``pandas`` metadata, but that is a bag of names for the receiver's pandas
to look up, and it loses much (frequencies, unused categories, index kinds, missing values' kinds). So the notes here
say what each axis and column is, in a closed set of structs, and decoding builds exactly those with pandas' own
validating constructors; no name from a peer is looked up except frequencies and time zones, each against a grammar.

Columns of numpy types are views of the frame's own memory both ways: those of one type travel together as one array,
wherever each of them lies here, and arrive as one block of pandas' own, writable, on the received bytes; so a wide
frame is neither copied nor made of a thousand blocks. Columns of Python objects go as text or bytes where they are
nothing else, else as plain data, value by value.

Missing values stay what they are, bit by bit: integers under NaT, NaN payloads, None against NaN in object columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from p2pnb.errors import CodecError, CorruptDataError, NotSupportedError
from p2pnb.objects.arrays import is_from
from p2pnb.objects.codec import Codec, Packed, read_note, write_note
from p2pnb.objects.pandas_notes import MAX_ROWS, Columns, PandasNote
from p2pnb.objects.pandas_read import FrameReader
from p2pnb.objects.pandas_write import FrameWriter
from p2pnb.objects.plain import Registry
from p2pnb.objects.preview import cell, describe_table
from p2pnb.protocol.wire import MAX_PREVIEW_COLUMNS, MAX_PREVIEW_ROWS, Preview

__all__ = ["PandasCodec"]


class PandasCodec(Codec):
    """pandas.DataFrame, pandas.Series, pandas.Index and its kinds, and pandas' scalars (as a series of one)."""

    name = "pandas"

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def takes(self, value: object) -> bool:
        if not is_from(value, "pandas"):
            return False
        import pandas as pd

        return _is_missing(value) or isinstance(value, pd.DataFrame | pd.Series | pd.Index | _scalars())

    def encode(self, value: Any) -> Packed:
        import pandas as pd

        if _is_missing(value):
            return Packed(write_note(PandasNote("NA" if value is pd.NA else "NaT", 0, [], Columns([]))))
        kind = type(value).__name__
        if isinstance(value, _scalars()):
            kind, value = "scalar", pd.Series([value])
        if type(value).__module__.split(".", 1)[0] != "pandas":
            base = "DataFrame" if isinstance(value, pd.DataFrame) else "Series"
            raise NotSupportedError(
                f"a {type(value).__qualname__} can't be sent with all it is; send pandas.{base}(value), "
                "its geometry or other special columns converted first (such as value.to_wkb())"
            )
        writer = FrameWriter(self._registry)
        if isinstance(value, pd.Index):
            note = PandasNote("Index", len(value), [writer.axis(value)], Columns([]))
            return Packed(write_note(note), writer.close())
        attrs = self._attrs(writer, value)
        unique = not value.flags.allows_duplicate_labels
        axis = writer.axis(value.index)
        if isinstance(value, pd.Series):
            label = "of the series" if value.name is None else value.name
            data = Columns([writer.values(value.array, label)])
            note = PandasNote(kind, len(value), [axis], data, writer.name(value.name), attrs, unique)
            return Packed(write_note(note), writer.close())
        columns = writer.axis(value.columns)
        note = PandasNote("DataFrame", len(value), [axis, columns], writer.frame(value), b"", attrs, unique)
        return Packed(write_note(note), writer.close())

    @staticmethod
    def _attrs(writer: FrameWriter, value: Any) -> bytes:
        if not value.attrs:
            return b""
        try:
            return writer.plain(dict(value.attrs))
        except CodecError as error:
            raise NotSupportedError(f"its attrs can't be sent ({error}); clear them: value.attrs = {{}}") from error

    def check(self, note: bytes, lengths: Sequence[int]) -> None:
        parsed = read_note(note, PandasNote)
        axes = {"DataFrame": 2, "Series": 1, "Index": 1, "scalar": 1, "NA": 0, "NaT": 0}.get(parsed.kind)
        if axes != len(parsed.axes) or not 0 <= parsed.rows <= MAX_ROWS:
            raise CorruptDataError("the received frame is of an unknown kind")

    def decode(self, note: bytes, buffers: Sequence[memoryview]) -> object:
        self.check(note, [len(buffer) for buffer in buffers])
        parsed = read_note(note, PandasNote)
        try:
            import pandas  # noqa: F401
        except ImportError:
            from p2pnb.objects.pandas_missing import as_table

            warnings.warn(f"pandas is not installed: the {parsed.kind} arrives as a pyarrow.Table", stacklevel=4)
            return as_table(parsed, buffers, self._registry)
        return FrameReader(buffers, self._registry).value(parsed)

    def preview(self, value: Any) -> Preview:
        import pandas as pd

        name = self.type_name(value)
        if _is_missing(value) or isinstance(value, _scalars()):
            return Preview(name, cell(value), text=cell(value))
        first = value[:MAX_PREVIEW_ROWS]
        if isinstance(value, pd.DataFrame):
            if first.shape[1] > MAX_PREVIEW_COLUMNS:
                first = first.iloc[:, :MAX_PREVIEW_COLUMNS]
            heads, columns = [], []
            for label, column in first.items():  # quicker than to ask for each
                heads.append((label, column.dtype))
                columns.append(column.tolist())
            return describe_table(name, *value.shape, heads, list(zip(*columns, strict=True)))
        label = "" if value.name is None else value.name
        return describe_table(name, len(value), 1, [(label, value.dtype)], [[item] for item in first.tolist()])

    def type_name(self, value: object) -> str:
        return f"pandas.{type(value).__name__}"


def _scalars() -> Any:
    import pandas as pd

    return pd.Timestamp | pd.Timedelta | pd.Period | pd.Interval


def _is_missing(value: object) -> bool:
    import pandas as pd

    return value is pd.NA or value is pd.NaT
