"""Codecs of others join without replacing ours; nothing heavy or dangerous is imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import p2pnb.objects
from p2pnb.errors import CorruptDataError, NotSupportedError, UsageError
from p2pnb.objects import Codec, Packed, decode, encode, register_codec
from p2pnb.objects import registry as registry_module


class Celsius:
    def __init__(self, degrees: int) -> None:
        self.degrees = degrees


class CelsiusCodec(Codec):
    name = "tests.celsius"

    def takes(self, value: object) -> bool:
        return isinstance(value, Celsius)

    def encode(self, value: object) -> Packed:
        assert isinstance(value, Celsius)
        return Packed(str(value.degrees).encode(), [(memoryview(b"payload"),)])

    def decode(self, note: bytes, buffers: Sequence[memoryview]) -> object:
        assert bytes(buffers[0]) == b"payload"
        return Celsius(int(note))


@pytest.fixture
def fresh_codecs(monkeypatch):
    monkeypatch.setattr(registry_module, "_codecs", registry_module._Codecs())


@pytest.mark.usefixtures("fresh_codecs")
def test_registered_codec_takes_its_values_also_inside_containers(travel):
    with pytest.raises(NotSupportedError, match=r"Celsius.*register_codec"):
        encode(Celsius(1))
    register_codec(CelsiusCodec())
    assert travel(Celsius(21)).degrees == 21
    assert travel({"t": [Celsius(3)]})["t"][0].degrees == 3
    assert encode(Celsius(21)).preview.summary.endswith("bytes")


@pytest.mark.usefixtures("fresh_codecs")
def test_what_a_codec_raises_is_corrupt_data():
    register_codec(CelsiusCodec())
    sent = encode(Celsius(1))
    with pytest.raises(CorruptDataError, match="damaged"):
        decode(sent.codec, sent.head.replace(b"1", b"x"), memoryview(bytearray(b"payload")))


@pytest.mark.usefixtures("fresh_codecs")
@pytest.mark.parametrize("name", ["plain", "pandas", "Upper", "", "a" * 65, "../x"])
def test_names_of_ours_and_impossible_names_are_refused(name):
    codec = type("Named", (CelsiusCodec,), {"name": name})()
    with pytest.raises(UsageError):
        register_codec(codec)


def test_only_codecs_can_be_registered():
    with pytest.raises(UsageError):
        register_codec(object())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["tests.unknown", "os", "../../x", "", "x" * 5000, "pickle"])
def test_unknown_codec_is_refused_in_words(name):
    with pytest.raises(NotSupportedError, match="not known here"):
        decode(name, encode(1).head, memoryview(bytearray(1)))


def in_a_child(script: str, path: Path | None = None) -> str:
    root = Path(__file__).parents[3]
    paths = [str(root)] + ([str(path)] if path else [])
    script = f"import sys; sys.path[:0] = {paths!r}\n{script}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_entry_point_is_loaded_on_the_first_miss_and_not_before(tmp_path):
    (tmp_path / "plug.py").write_text(
        "from p2pnb.objects import Codec, Packed\n"
        "class Thing: pass\n"
        "class ThingCodec(Codec):\n"
        "    name = 'thing'\n"
        "    def takes(self, value): return isinstance(value, Thing)\n"
        "    def encode(self, value): return Packed(b'', [])\n"
        "    def decode(self, note, buffers): return Thing()\n"
    )
    info = tmp_path / "plug-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[p2pnb.codecs]\nthing = plug:ThingCodec\n")
    script = (
        "from p2pnb.objects import encode, decode\n"
        "encode([1, 'a']); assert 'plug' not in sys.modules\n"
        "head = encode({}).head\n"
        "got = decode('thing', b'\\x93\\x01\\x90\\xc4\\x00', memoryview(b''))\n"
        "sent = encode(got)\n"
        "print(type(got).__name__, sent.codec)"
    )
    assert in_a_child(script, tmp_path) == "Thing thing"


def test_importing_the_package_loads_no_library_of_data():
    script = (
        "import p2pnb.objects\n"
        "heavy = ('numpy', 'pyarrow', 'pandas', 'polars', 'PIL', 'matplotlib', 'duckdb')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    assert in_a_child(script) == "[]"


def test_plain_data_travels_without_any_library_of_data():
    script = (
        "class Ban:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('numpy', 'pyarrow', 'pandas', 'polars', 'PIL'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Ban())\n"
        "from p2pnb.objects import encode, decode\n"
        "e = encode({'a': [1, b'x', {2}]})\n"
        "print(decode(e.codec, e.head, memoryview(bytearray(b''.join(e.chunks())))))"
    )
    assert in_a_child(script) == "{'a': [1, b'x', {2}]}"


def test_frames_arrive_as_tables_where_their_library_is_missing(tmp_path):
    script = (
        "import pandas as pd, polars as pl, pickle, pathlib\n"
        "from p2pnb.objects import encode\n"
        "f = pd.DataFrame({'n': [1, 2], 'x': [1.5, None], 't': ['a', None], 'c': pd.Categorical(['u', None]),\n"
        "  'z': pd.date_range('2020', periods=2, tz='Europe/Berlin'), 'b': [True, False], 'o': [1, None]},\n"
        "  index=pd.Index(['r', 's'], name='key'))\n"
        "f['o'] = f['o'].astype(object)\n"
        "i = pd.MultiIndex.from_tuples([('a', 1), ('b', 2)], names=['k', None])\n"
        "m = pd.DataFrame([[1.0, 2.0]] * 2, columns=['p', 'q'], index=i)\n"
        "s = pd.Series([1, 2], name='s')\n"
        "for n, v in {'f': f, 'm': m, 's': s, 'l': pl.DataFrame({'a': [1]})}.items():\n"
        "    e = encode(v)\n"
        f"    d = pathlib.Path({str(tmp_path)!r})\n"
        "    (d / n).write_bytes(b''.join(e.chunks())); (d / (n + '.head')).write_bytes(e.head)\n"
    )
    in_a_child(script)
    script = (
        "import warnings, pathlib\n"
        "class Ban:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('pandas', 'polars'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Ban())\n"
        "from p2pnb.objects import decode\n"
        f"d = pathlib.Path({str(tmp_path)!r})\n"
        "for n, c in (('f', 'pandas'), ('m', 'pandas'), ('s', 'pandas'), ('l', 'polars')):\n"
        "    with warnings.catch_warnings(record=True) as heard:\n"
        "        warnings.simplefilter('always')\n"
        "        t = decode(c, (d / (n + '.head')).read_bytes(), memoryview(bytearray((d / n).read_bytes())))\n"
        "    assert 'not installed' in str(heard[0].message), heard\n"
        "    print(type(t).__name__, t.select([c for c in t.column_names if c != 'z']).to_pydict())\n"
    )
    out = in_a_child(script).splitlines()
    assert out[0] == (
        "Table {'key': ['r', 's'], 'n': [1, 2], 'x': [1.5, nan], 't': ['a', None], 'c': ['u', None], "
        "'b': [True, False], 'o': [1.0, nan]}"
    )
    assert out[1] == "Table {'k': ['a', 'b'], 'index 1': [1, 2], 'p': [1.0, 1.0], 'q': [2.0, 2.0]}"
    assert out[2] == "Table {'s': [1, 2]}"
    assert out[3] == "Table {'a': [1]}"


def test_no_source_of_ours_names_a_deserialiser_that_can_run_code():
    folder = Path(p2pnb.objects.__file__).parent
    banned = (
        "import pickle",
        "cloudpickle",
        "joblib",
        "marshal",
        "shelve",
        "dill",
        "eval(",
        "exec(",
        "np.load(",
        "numpy.load(",
    )
    for source in folder.glob("*.py"):
        text = source.read_text(encoding="utf-8")
        assert not [word for word in banned if word in text], source.name


def test_nothing_is_unpickled_on_either_side():
    script = (
        "import pandas as pd, polars as pl, numpy as np, pyarrow as pa, pickle, _pickle, io\n"
        "from PIL import Image\n"
        "from p2pnb.objects import encode, decode\n"
        "values = [pd.DataFrame({'a': [1], 'c': pd.Categorical(['x']), 'o': [[1]]}), pl.DataFrame({'a': ['x']}),\n"
        "  np.arange(3), np.ma.array([1], mask=[1]), pa.table({'a': [1]}), {'a': {1, 2}}, Image.new('RGB', (2, 2))]\n"
        "def no(*a, **k): raise SystemExit('unpickled')\n"
        "class No:\n"
        "    def __init__(self, *a, **k): raise SystemExit('unpickler')\n"
        "for m in (pickle, _pickle):\n"
        "    m.loads = m.load = m.dumps = m.dump = no; m.Unpickler = m.Pickler = No\n"
        "for v in values:\n"
        "    e = encode(v); decode(e.codec, e.head, memoryview(bytearray(b''.join(e.chunks()))))\n"
        "print('done')"
    )
    assert in_a_child(script) == "done"
