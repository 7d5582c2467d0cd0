"""A part of a table or array is what its library would give, and a name from a peer is only ever compared."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from p2pnb.errors import UsageError
from p2pnb.objects import encode
from p2pnb.objects.slices import columns_of, rows_of, slice_value, sliceable

NUMBERS = {"price": [1.5, 2.5, 3.5, 4.5], "count": [1, 2, 3, 4], "name": ["a", "b", None, "d"]}
FRAME = pd.DataFrame(NUMBERS, index=pd.Index([10, 20, 30, 40], name="key"))
STRUCTURED = np.array([(1, 2.5, True), (2, 3.5, False), (3, 4.5, True)], [("a", "i4"), ("b", "f8"), ("c", "?")])
TABLES = {
    "pandas": FRAME,
    "polars": pl.DataFrame(NUMBERS),
    "pyarrow table": pa.table(NUMBERS),
    "pyarrow batch": pa.record_batch(NUMBERS),
}


def plain(value: Any) -> Any:
    if isinstance(value, pd.DataFrame):
        return {name: value[name].astype(object).where(value[name].notna(), None).tolist() for name in value}
    return value.to_dict(as_series=False) if isinstance(value, pl.DataFrame) else value.to_pydict()


@pytest.mark.parametrize("kind", TABLES)
def test_table_gives_rows_and_columns_in_the_order_asked_for(kind, travel):
    table = TABLES[kind]
    assert sliceable(table)
    assert (rows_of(table), columns_of(table)) == (4, ["price", "count", "name"])
    for columns, rows, first, end in [
        (["name", "price"], (1, 3), 1, 3),
        (["count"], None, 0, 4),
        (None, (2, 4), 2, 4),
        (["price", "count"], (3, 10**12), 3, 4),
        (["count"], (4, 9), 4, 4),
        (None, (2**63, 2**64), 4, 4),
        (None, (0, 0), 0, 0),
    ]:
        part = slice_value(table, columns, rows)
        assert type(part) is type(table)
        assert plain(part) == {name: NUMBERS[name][first:end] for name in columns or NUMBERS}
        got = travel(part)
        assert type(got) is type(table)
        assert plain(got) == plain(part)
    assert slice_value(table, None, None) is table


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (np.arange(12).reshape(4, 3), np.arange(3, 9).reshape(2, 3)),
        (pl.Series("s", [1, 2, 3, 4]), pl.Series("s", [2, 3])),
        (pa.array([1, 2, 3, 4]), pa.array([2, 3])),
        (pa.chunked_array([[1, 2], [3, 4]]), pa.chunked_array([[2], [3]])),
        (pd.Series([1, 2, 3, 4], name="s"), pd.Series([2, 3], index=[1, 2], name="s")),
    ],
    ids=lambda value: type(value).__qualname__,
)
def test_values_without_columns_give_rows(value, part):
    assert sliceable(value)
    got: Any = slice_value(value, None, (1, 3))
    assert type(got) is type(part)
    assert np.array_equal(got, part) if isinstance(part, np.ndarray) else got.equals(part)
    assert columns_of(value) == []
    with pytest.raises(UsageError, match="only be asked for rows"):
        slice_value(value, ["a"], None)


@pytest.mark.parametrize("value", [STRUCTURED, STRUCTURED.view(np.recarray), np.ma.array(STRUCTURED)])
def test_fields_of_a_structured_array_are_columns_and_bring_no_others(value, travel):
    part: Any = slice_value(value, ["c", "a"], (1, 3))
    assert type(part) is type(value)
    assert part.dtype.names == ("c", "a")
    assert part.dtype.itemsize == 5
    assert travel(part).tolist() == [(False, 2), (True, 3)]


def test_pandas_index_and_attrs_stay_with_the_rows():
    frame = FRAME.copy()
    frame.attrs = {"source": "x"}
    part: Any = slice_value(frame, ["name", "price"], (1, 3))
    assert part.index.equals(pd.Index([20, 30], name="key"))
    assert part.attrs == {"source": "x"}
    unique: Any = slice_value(FRAME.set_flags(allows_duplicate_labels=False), ["name", "price"], None)
    assert not unique.flags.allows_duplicate_labels


def test_labels_of_other_rows_do_not_travel():
    index = pd.MultiIndex.from_tuples([(f"secret {n}", n) for n in range(100)])
    part = slice_value(pd.DataFrame({"a": range(100)}, index=index), None, (3, 5))
    content = b"".join(encode(part).chunks()) + encode(part).head
    assert b"secret 3" in content
    assert b"secret 7" not in content


@pytest.mark.parametrize(
    "make",
    [
        lambda texts: pl.DataFrame({"a": texts}),
        lambda texts: pl.DataFrame({"a": [[text] for text in texts]}),
        lambda texts: pl.DataFrame({"a": [{"b": text} for text in texts]}),
        lambda texts: pa.table({"a": pa.array(texts, pa.string_view())}),
        lambda texts: pa.table({"a": pa.array([text.encode() for text in texts], pa.binary_view())}),
        lambda texts: pa.table({"a": texts}),
        lambda texts: pd.DataFrame({"a": texts}),
        lambda texts: pd.DataFrame({"a": pd.array(texts, dtype=pd.ArrowDtype(pa.string_view()))}),
    ],
    ids=["polars", "polars lists", "polars structs", "views", "binary views", "offsets", "pandas", "pandas views"],
)
def test_text_of_other_rows_does_not_travel(make, travel):
    table = make([f"text number {n:09} that is longer than a view" for n in range(20_000)])
    part: Any = slice_value(table, None, (100, 110))
    encoded = encode(part)
    assert encoded.content_bytes < 8_000  # of 900,000 and more
    assert b"000000111" not in b"".join(encoded.chunks())
    assert travel(part).equals(part)


def test_parts_are_views():
    frame = pd.DataFrame({n: np.arange(1000) * (n + 1) for n in range(6)})
    part: Any = slice_value(frame, ["4", "0", "1"], (10, 900))
    for place in (4, 0, 1):
        assert np.shares_memory(part[place].to_numpy(copy=False), frame[place].to_numpy(copy=False))
    array = np.arange(100)
    assert np.shares_memory(slice_value(array, None, (3, 50)), array)  # type: ignore[arg-type]


def test_relation_gives_a_table():
    relation = duckdb.sql("select range as n, range * 2 as twice from range(10) order by n")
    assert sliceable(relation)
    assert (rows_of(relation), columns_of(relation)) == (None, ["n", "twice"])
    assert slice_value(relation, ["twice"], (1, 3)) == pa.table({"twice": [2, 4]})
    with pytest.raises(UsageError, match="no column"):
        slice_value(relation, ["n; drop table x"], None)


@pytest.mark.parametrize("value", [1, "text", [1, 2], {"a": np.arange(3)}, np.float64(1), np.array(5), None])
def test_everything_else_has_no_parts(value):
    assert not sliceable(value)
    assert rows_of(value) is None
    assert columns_of(value) == []
    with pytest.raises(UsageError, match="ask for all of it"):
        slice_value(value, None, (0, 1))


def test_lazy_frames_and_readers_have_no_parts():
    assert not sliceable(pl.LazyFrame({"a": [1]}))
    assert not sliceable(pa.table({"a": [1]}).to_reader())


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("name", ["*", "^.*$", "^p", "price; drop", "0", "price ", "pricee", "", "🙂" * 50_000])
def test_what_is_no_label_is_refused_whatever_it_means_elsewhere(kind, name):
    with pytest.raises(UsageError, match="there is no column") as refused:
        slice_value(TABLES[kind], [name], None)
    assert len(str(refused.value)) < 400


def test_missing_column_names_those_alike():
    with pytest.raises(UsageError, match="there is no column 'prise'; did you mean 'price'"):
        slice_value(FRAME, ["prise"], None)
    with pytest.raises(UsageError, match="did you mean 'count'"):
        slice_value(FRAME, ["COUNT"], None)
    with pytest.raises(UsageError, match="its columns are 'price', 'count', 'name'"):
        slice_value(FRAME, ["zzz"], None)


@pytest.mark.parametrize("rows", [(-1, 2), (3, 2), (0, -1), (-(2**70), 0)])
def test_rows_counted_from_the_end_or_backwards_are_refused(rows):
    with pytest.raises(UsageError, match="count from 0"):
        slice_value(FRAME, None, rows)


@pytest.mark.parametrize("rows", [(0, 1, 2), (0,), (0.0, 1), (True, 2), ("0", "1"), (None, 1)])
def test_rows_that_are_no_numbers_are_refused(rows):
    with pytest.raises(UsageError, match="two whole numbers"):
        slice_value(FRAME, None, rows)


@pytest.mark.parametrize("columns", [[1], [None], [("price",)], [["price"]]])
def test_columns_that_are_no_text_are_refused(columns):
    with pytest.raises(UsageError, match="list of names"):
        slice_value(FRAME, columns, None)


def test_one_text_is_not_taken_for_a_list_of_letters():
    with pytest.raises(UsageError, match="list of names"):
        slice_value(pd.DataFrame({"a": [1], "b": [2]}), "ab", None)


def test_nothing_and_twice_the_same_are_refused():
    with pytest.raises(UsageError, match="not one column"):
        slice_value(FRAME, [], None)
    with pytest.raises(UsageError, match="named twice"):
        slice_value(FRAME, ["price", "price"], None)


def test_labels_that_are_no_text_are_found_by_their_text():
    day = pd.Timestamp("2024-01-01")
    frame = pd.DataFrame([[1, 2, 3]], columns=pd.Index([5, day, ("x", 1)], tupleize_cols=False))
    assert columns_of(frame) == ["5", "2024-01-01 00:00:00", "('x', 1)"]
    assert list(slice_value(frame, ["2024-01-01 00:00:00", "5"], None).columns) == [day, 5]  # type: ignore[attr-defined]


@pytest.mark.parametrize("labels", [["a", "a"], [1, "1"]])
def test_labels_with_one_text_are_not_guessed_between(labels):
    with pytest.raises(UsageError, match="several columns"):
        slice_value(pd.DataFrame([[1, 2]], columns=labels), [str(labels[0])], None)
    with pytest.raises(UsageError, match="several columns"):
        slice_value(pa.table([[1], [2]], names=["a", "a"]), ["a"], None)


def test_names_are_bounded():
    frame = pd.DataFrame(np.zeros((1, 20_000)))
    assert len(columns_of(frame)) == 10_000
    assert columns_of(frame, 3) == ["0", "1", "2"]
    assert len(columns_of(pd.DataFrame({"x" * 10_000: [1]}))[0]) == 1_000
