"""Arrow streams made to hurt are refused before pyarrow, or anything of ours, acts on them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from p2pnb.errors import CorruptDataError
from p2pnb.objects import decode, layout


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def receive_stream(data: bytes, rows: int, kind: str = "Table") -> Any:
    note = msgspec.msgpack.encode([kind, rows])
    head = msgspec.msgpack.encode([1, [len(data)], note])
    layout("arrow", head, len(data))
    return decode("arrow", head, memoryview(bytearray(data)))


def test_plain_stream_of_another_writer_is_taken():
    table = pa.table({"a": [1, 2]})
    assert receive_stream(stream(table), 2).equals(table)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_stream_is_refused_before_it_is_expanded(codec):
    data = stream(pa.table({"a": pa.array([0] * 1_000_000)}), compression=codec)
    assert len(data) < 100_000
    with pytest.raises(CorruptDataError, match="compressed"):
        receive_stream(data, 1_000_000)


def test_compressed_dictionary_is_refused():
    data = stream(pa.table({"a": pa.array(["x" * 1000]).dictionary_encode()}), compression="zstd")
    with pytest.raises(CorruptDataError, match="compressed"):
        receive_stream(data, 1)


class Loud(pa.ExtensionType):  # type: ignore[misc]
    woken = 0

    def __init__(self) -> None:
        super().__init__(pa.int64(), "tests.loud")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"payload"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> Loud:
        cls.woken += 1
        return cls()


@pytest.mark.parametrize("nested", [False, True])
def test_extension_type_is_refused_before_its_code_runs(nested):
    array = pa.ExtensionArray.from_storage(Loud(), pa.array([1], pa.int64()))
    column = pa.StructArray.from_arrays([array], ["inner"]) if nested else array
    data = stream(pa.table({"a": column}))
    pa.register_extension_type(Loud())
    try:
        Loud.woken = 0
        with pytest.raises(CorruptDataError, match="extension type"):
            receive_stream(data, 1)
        assert Loud.woken == 0
    finally:
        pa.unregister_extension_type("tests.loud")


@pytest.mark.parametrize(
    "column",
    [
        pa.nulls(50_000_000),
        pa.FixedSizeListArray.from_arrays(pa.nulls(50_000_000), 1),
        pa.ListArray.from_arrays(pa.array([0, 50_000_000], pa.int32()), pa.nulls(50_000_000)),
        pa.StructArray.from_arrays([pa.nulls(50_000_000)], ["n"]),
        pa.array([b""], pa.binary(0)).take(pa.array([0] * 3_000_000)),
    ],
    ids=["null", "fixed list of null", "list of null", "struct of null", "no width"],
)
def test_rows_that_take_no_bytes_are_bounded(column):
    with pytest.raises(CorruptDataError, match="more rows than its bytes"):
        receive_stream(stream(pa.table({"a": column})), len(column))


def test_runs_are_refused():
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2**31 - 1], pa.int32()), pa.array([1]))
    with pytest.raises(CorruptDataError):
        receive_stream(stream(pa.table({"a": runs})), 2**31 - 1)


def test_deep_nesting_is_refused():
    kind = pa.int8()
    for _ in range(40):
        kind = pa.list_(kind)
    with pytest.raises(CorruptDataError, match="nested"):
        receive_stream(stream(pa.table({"a": pa.array([], kind)})), 0)


def test_dictionary_deltas_are_refused():
    first = pa.array(["a", "b"]).dictionary_encode()
    longer = pa.DictionaryArray.from_arrays(pa.array([2], pa.int32()), pa.array(["a", "b", "c"]))
    data = stream(pa.table({"d": pa.chunked_array([first, longer])}), emit_dictionary_deltas=True)
    with pytest.raises(CorruptDataError, match="partial dictionary"):
        receive_stream(data, 3)


def test_offsets_beyond_their_values_are_refused():
    values, offsets = b"abcdef", pa.array([0, 3, 6], pa.int32())
    table = pa.table({"s": pa.StringArray.from_buffers(2, offsets.buffers()[1], pa.py_buffer(values))})
    data = bytearray(stream(table))
    at = data.index(bytes(offsets.buffers()[1])[:12])
    data[at + 4 : at + 8] = (2**30).to_bytes(4, "little")
    with pytest.raises(CorruptDataError, match="damaged"):
        receive_stream(bytes(data), 2)


def test_dictionary_index_beyond_its_values_is_refused():
    data = bytearray(stream(pa.table({"d": pa.array([f"v{n}" for n in range(9)]).dictionary_encode()})))
    indices = b"".join(n.to_bytes(4, "little") for n in range(9))
    data[data.rindex(indices) + 8] = 0x70
    with pytest.raises(CorruptDataError, match="damaged"):
        receive_stream(bytes(data), 9)


def test_cut_or_lengthened_stream_is_refused():
    data = stream(pa.table({"a": list(range(100))}))
    for damaged in (data[:-8], data[: len(data) // 2], data + bytes(8), b"", data[8:], data + data):
        with pytest.raises(CorruptDataError):
            receive_stream(damaged, 100)


def test_wrong_number_of_rows_is_refused():
    with pytest.raises(CorruptDataError, match="rows"):
        receive_stream(stream(pa.table({"a": [1, 2]})), 3)


@pytest.mark.parametrize("kind", ["", "pickle", "DataFrame"])
def test_unknown_kind_is_refused_before_content(kind):
    with pytest.raises(CorruptDataError, match="unknown kind"):
        receive_stream(stream(pa.table({"a": [1]})), 1, kind)


def test_memory_stays_flat_under_hostile_heads_and_streams():
    """In a child, so that nothing of this process counts; growth is what the parent asserts."""
    script = textwrap.dedent(
        """
        import resource, msgspec, pyarrow as pa
        from p2pnb.errors import P2PError
        from p2pnb.objects import decode, encode, layout

        def receive(codec, note, data, lengths=None):
            head = msgspec.msgpack.encode([1, [len(data)] if lengths is None else lengths, note])
            try:
                layout(codec, head, len(data))
                decode(codec, head, memoryview(bytearray(data)))
            except P2PError:
                return
            raise SystemExit("accepted")

        pack = msgspec.msgpack.encode
        warm = encode(pa.table({"a": [1]}))
        decode("arrow", warm.head, memoryview(bytearray(b"".join(warm.chunks()))))
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_stream(sink, pa.schema({"a": pa.int64()}), options=options) as w:
            w.write_batch(pa.record_batch({"a": pa.array([0]).take(pa.array([0] * 8_000_000, pa.int8()))}))
        bomb = sink.getvalue().to_pybytes()
        tree = pack([0] + [[20, 0, 0]] * 2_000)  # one buffer, two thousand times
        again = tree + bytes(-len(tree) % 64) + bytes(1_000_000)
        sink, column = pa.BufferOutputStream(), pa.table({"0": pa.array(["x" * 9] * 20_000, pa.large_string())})
        with pa.ipc.new_stream(sink, column.schema) as w:
            w.write_table(column)
        data, axes = sink.getvalue().to_pybytes(), [["range", 0, 20_000, 1], ["range", 0, 2_000, 1]]
        texts = ["DataFrame", 20_000, axes, ["columns", [["objects", 0, 0, "text"]] * 2_000]]
        del sink, w
        pa.default_memory_pool().release_unused()
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # resets the high-water mark
        before = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
        for _ in range(20):
            receive("arrow", pack(["Table", 8_000_000]), bomb)
            receive("numpy", pack(["array", ["<f8"], [2**40]]), b"12345678")
            receive("numpy", pack(["array", ["|S0"], [2**40]]), b"")
            receive("numpy", pack(["objects", [], [2**40]]), b"\\x91\\x00")
            receive("numpy", b"", b"", [2**63 - 1])
            receive("numpy", b"", b"", [2**62] * 4)
            receive("plain", b"", b"\\xdd\\xff\\xff\\xff\\xff" * 10)
            long = ["range", 0, 2**50, 1]
            receive("pandas", pack(["DataFrame", 2**50, [long, long], ["columns", []]]), b"", [])
            receive("plain", b"", again, [len(tree), 1_000_000])
            receive("pandas", pack(texts), data)
        after = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
        print(after - before)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert int(done.stdout) < 48 * 1024
