"""Arrow in all its shapes comes back as it was; what has no codec but exports Arrow comes as a table."""

from __future__ import annotations

import json
import uuid
import warnings

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from p2pnb.errors import NotSupportedError
from p2pnb.objects import encode

TABLE = pa.table(
    {
        "a": pa.array([1, None, 3]),
        "s": ["x", "y", None],
        "d": pa.array(["p", "q", "p"]).dictionary_encode(),
        "n": pa.nulls(3),
        "l": pa.array([[["x"]], None, []]),
        "m": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
        "v": pa.array(["a string of some length", None, ""], pa.string_view()),
    },
    metadata={"k": "v"},
)
UUIDS = pa.table({"u": pa.array([uuid.uuid4().bytes] * 2, pa.uuid())})


@pytest.mark.parametrize(
    "sent",
    [TABLE, TABLE.slice(1), TABLE.slice(0, 0), pa.table({}), pa.concat_tables([TABLE, TABLE]), UUIDS],
    ids=["table", "slice", "no rows", "no columns", "chunks", "uuids"],
)
def test_table_comes_back_equal_with_its_metadata(sent, travel):
    got = travel(sent)
    assert isinstance(got, pa.Table)
    assert got.schema.equals(sent.schema, check_metadata=True)
    assert got.equals(sent)


@pytest.mark.parametrize(
    "sent",
    [
        TABLE.to_batches()[0],
        TABLE.to_batches()[0].slice(0, 0),
        pa.array([[1], None]),
        pa.array([], pa.int8()),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.chunked_array([[1], [2, 3], []]),
        pa.chunked_array([], pa.string()),
    ],
    ids=lambda value: f"{type(value).__name__} {len(value)}",
)
def test_arrays_and_batches_come_back_equal(sent, travel):
    got = travel(sent)
    assert type(got) is type(sent)
    assert got.equals(sent)


def test_reader_comes_back_as_a_reader(travel):
    got = travel(TABLE.to_reader())
    assert isinstance(got, pa.RecordBatchReader)
    assert got.read_all().equals(TABLE)


def test_duckdb_relation_arrives_as_its_rows(travel):
    got = travel(duckdb.sql("select 1 as a, 'x' as b"))
    assert isinstance(got, pa.Table)
    assert got.to_pylist() == [{"a": 1, "b": "x"}]


def test_columns_are_not_copied():
    values = np.arange(100_000)
    encoded = encode(pa.table({"a": values}))
    assert any(np.shares_memory(np.frombuffer(piece, "u1"), values) for piece in encoded.buffers)


def test_notes_for_pandas_survive(travel):
    frame = pd.DataFrame({"a": [1], "t": pd.to_datetime(["2020"], utc=True)}, index=pd.Index([3], name="i"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = travel(pa.Table.from_pandas(frame))
    pd.testing.assert_frame_equal(got.to_pandas(), frame)


def pandas_notes(name: str, numpy_type: str) -> bytes:
    column = {"name": name, "field_name": "a", "pandas_type": "int64", "numpy_type": numpy_type, "metadata": None}
    notes = {"index_columns": [], "column_indexes": [], "columns": [column], "creator": {}, "pandas_version": "3"}
    return json.dumps(notes).encode()


@pytest.mark.parametrize(
    "notes",
    [
        b"not json",
        b"{}",
        pandas_notes("a", "os.system(1)"),
        pandas_notes("(" * 5000, "int64"),
    ],
    ids=["no json", "empty", "unknown type", "name to evaluate"],
)
def test_unusual_notes_for_pandas_are_dropped_with_a_warning(notes, travel):
    sent = pa.table({"a": [1]}, metadata={b"pandas": notes, b"kept": b"yes"})
    with pytest.warns(UserWarning, match="notes for pandas"):
        got = travel(sent)
    assert got.schema.metadata == {b"kept": b"yes"}


def test_types_that_could_hide_a_bomb_are_refused_with_advice():
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([3], pa.int32()), pa.array([1]))
    with pytest.raises(NotSupportedError, match="run_end_decode"):
        encode(pa.table({"r": runs}))
    with pytest.raises(NotSupportedError, match="length"):
        encode(pa.table({"n": pa.nulls(1 << 21)}))


def test_foreign_extension_types_are_refused_with_advice():
    tensor = pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.int8(), [2]), pa.array([[1, 2]], pa.list_(pa.int8(), 2))
    )
    with pytest.raises(NotSupportedError, match=r"'x' has the extension type.*storage"):
        encode(pa.table({"x": tensor}))
