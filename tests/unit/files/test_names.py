"""What has to hold of names: nothing from a peer hides, leads out, or is obeyed by some program."""

from __future__ import annotations

import unicodedata
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnb.errors import UnsafeNameError
from p2pnb.files.names import (
    MAX_NAME_BYTES,
    collision_key,
    free_name,
    harmless_name,
    numbered_name,
    portable_name,
    printable,
    safe_name,
    safe_relative,
)

TRICKY = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(codec=None), max_size=20),  # lone surrogates too, as file names on Linux have them
    st.text(" ./\\:~\x00\n\u202e\u200b\u200d\ufe0fe\u0301\U0001f469conauxlpt1", max_size=12),
    st.text("a.\u00e9 ", min_size=200, max_size=400),
)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J\x1b]0;pwned\x07", r"\x1b[2J\x1b]0;pwned\x07"),
        ("a\x00b\x7fc\x85d\x9be", r"a\x00b\x7fc\x85d\x9be"),
        ("invoice\u202egpj.exe", r"invoice\u202egpj.exe"),
        ("\u2066a\u2067b\u2068c\u2069", r"\u2066a\u2067b\u2068c\u2069"),
        ("A\u200bda \ufeffAda\u2060", r"A\u200bda \ufeffAda\u2060"),
        ("A\u200dda", r"A\u200dda"),
        ("line\r\nfeed\tand\u2028more", r"line\r\nfeed\tand\u2028more"),
        ("\ud800 lone", r"\ud800 lone"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("filler\u3164\u2800\u115f", r"filler\u3164\u2800\u115f"),
        ("a\ufe0fb\ufe01", r"a\ufe0fb\ufe01"),
        ("\uffff\U0001ffff", r"\uffff\U0001ffff"),
        ("private \ue000", r"private \ue000"),
    ],
)
def test_what_could_act_on_the_screen_is_shown_as_an_escape(hostile: str, shown: str) -> None:
    assert printable(hostile) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Ada Löwe",
        "数据.csv",
        "مرحبا",
        "می\u200cخواهم",
        "क्\u200dष",
        "👩\u200d💻 👩🏽\u200d🔬 ❤️\u200d🔥",
        "1️⃣ ©️",
        "a\u202fPM",
        "e\u0301",
        "שָׁלוֹם",
        "",
    ],
)
def test_what_people_write_is_kept(text: str) -> None:
    assert printable(text) == text


def test_piled_up_marks_do_not_paint_over_other_lines() -> None:
    assert "\u0301" * 5 not in printable("a" + "\u0301" * 50)


@given(TRICKY, st.integers(0, 60))
def test_printable_text_is_short_and_harmless(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cs", "Co", "Zl", "Zp"}
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\ufeff")
    shown.encode()


def test_a_cut_text_says_so_and_never_ends_inside_an_escape() -> None:
    assert printable("abcdef", 4) == "abc…"
    assert printable("ab\u202e", 5) == "ab…"
    assert printable("ab\n", 4) == "ab\\n"


def test_only_the_shown_beginning_costs_time() -> None:
    assert len(printable("\x1b" * 50_000_000, 100)) <= 100


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "...", "../x", "/etc/passwd", "a/b", "a\\b", "..\\x", "C:", "C:\\x", "\\\\host\\share", "a:b",
        "x.txt::$DATA", "~", "~root", "~/x", ".ssh", ".bashrc", ".ipynb_checkpoints", ".p2pnb-0123456789abcdef.part",
        "con", "CON.txt", "aux.c", "nul .txt", "Lpt1.x.y", "com9", "COM¹", "conin$", "prn.", "a.", "a ", "a\u00a0", " ",
        "a\x00b", "a\nb", "a\x1b[2Jb", "a\u202eb", "a\u200bb", "\ufeffa", "a\ud800", "a\u2028b", "x" * 256, "é" * 128,
        "a\u3164",
    ],
)  # fmt: skip
def test_a_name_that_could_do_harm_is_refused_in_words_that_do_none(name: str) -> None:
    with pytest.raises(UnsafeNameError) as refusal:
        safe_name(name)
    assert str(refusal.value).replace("\u00a0", " ").isprintable()
    assert len(str(refusal.value)) < 250


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a.txt",
        "Makefile",
        "a b.tar.gz",
        "x" * 255,
        "données.csv",
        "👩\u200d💻.png",
        "con2",
        "icon",
        "a~b",
        "-rf",
        "a..b",
        "1.0",
        "console.log",
        "com10.txt",
    ],
)
def test_an_ordinary_name_is_kept(name: str) -> None:
    assert safe_name(name) == name


def test_names_are_composed() -> None:
    assert safe_name("e\u0301") == "é"
    assert safe_relative("a\u0308/o\u0308").parts == ("ä", "ö")


@pytest.mark.parametrize(
    "path",
    ["", "/", "/a", "a/", "a//b", "./a", "a/./b", "../a", "a/../../b", "a/.git/config", "a/con/b", "a\\..\\b", "a:b/c",
     "/".join("a" * 65), "a/" * 5000 + "b", "/".join(["x" * 200] * 11), "é" * 1000 + "/" + "é" * 100],
)  # fmt: skip
def test_a_path_that_leads_out_or_too_deep_is_refused(path: str) -> None:
    with pytest.raises(UnsafeNameError):
        safe_relative(path)


def test_a_path_may_be_64_deep() -> None:
    assert len(safe_relative("/".join("a" * 64)).parts) == 64


@pytest.mark.parametrize(
    "name",
    [
        "conftest.py", "Conftest.PY", "sitecustomize.py", "sitecustomize", "usercustomize.cpython-311.pyc", "x.pth",
        "A.PTH", "jupyter_server_config.py", "jupyter_notebook_config.json", "jupyter_config.py", "ipython_config.py",
        "__pycache__", "pyvenv.cfg", "desktop.ini", "autorun.inf", "\u017fitecustomize.py",
    ],
)  # fmt: skip
def test_what_programs_obey_unasked_gets_another_name(name: str) -> None:
    assert harmless_name(name) == f"{name}.received"
    assert safe_name(harmless_name(name)) == harmless_name(name)


@pytest.mark.parametrize("name", ["test_conf.py", "my_conftest.py", "config.json", "a.pthx", "setup.py", "jupyter.py"])
def test_ordinary_code_keeps_its_name(name: str) -> None:
    assert harmless_name(name) == name


def test_another_name_stays_within_the_limit() -> None:
    assert len(harmless_name("x" * 251 + ".pth").encode()) == MAX_NAME_BYTES


@given(TRICKY)
def test_every_name_has_a_portable_one_that_is_safe(name: str) -> None:
    portable = portable_name(name)
    assert safe_name(portable) == portable
    assert portable_name(portable) == portable


@given(TRICKY)
def test_a_portable_name_is_kept_as_it_is(name: str) -> None:
    try:
        safe = safe_name(name)
    except UnsafeNameError:
        return
    if not set(safe) & set('<>"|?*'):
        assert portable_name(name) == safe


@pytest.mark.parametrize(
    ("name", "portable"),
    [
        (".env", "_.env"),
        ("2024-01-01T10:30.csv", "2024-01-01T10_30.csv"),
        ("what?.txt", "what_.txt"),
        ("aux.c", "_aux.c"),
        ("~draft", "_~draft"),
        ("end. ", "end__"),
        ("caf\udce9.txt", "caf_.txt"),
        ("x" * 300 + ".csv", "x" * 251 + ".csv"),
    ],
)
def test_a_portable_name_stays_near_the_original(name: str, portable: str) -> None:
    assert portable_name(name) == portable


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("a.txt", "a (2).txt"),
        ("a", "a (2)"),
        ("b.tar.gz", "b (2).tar.gz"),
        ("v1.0 final", "v1 (2).0 final"),
        ("x" * 251 + ".txt", "x" * 247 + " (2).txt"),
        ("é" * 127, "é" * 125 + " (2)"),
        ("a." + "b" * 100, "a." + "b" * 100 + " (2)"),
    ],
)
def test_a_numbered_name_keeps_its_extension_and_the_limit(name: str, second: str) -> None:
    assert numbered_name(name, 2) == second
    assert safe_name(second) == second


@given(TRICKY, st.integers(2, 10_000))
def test_a_numbered_safe_name_is_safe(name: str, number: int) -> None:
    numbered = numbered_name(portable_name(name), number)
    assert safe_name(numbered) == numbered


def test_names_that_some_file_system_takes_for_one_become_distinct() -> None:
    taken: dict[str, int] = {}
    names = ["Read me", "README", "read me", "readme", "straße", "STRASSE", "é", "e\u0301", "É", "a (2)", "a", "A", "a"]
    landed = [free_name(unicodedata.normalize("NFC", name), taken) for name in names]
    assert len({collision_key(name) for name in landed}) == len(names)
    assert landed[-3:] == ["a", "A (3)", "a (4)"]


@given(st.lists(st.sampled_from(["a", "A", "a (2)", "a (3)", "A (2)", "a (2) (2)"]), max_size=30))
def test_free_names_never_collide(names: list[str]) -> None:
    taken: dict[str, int] = {}
    landed = [free_name(name, taken) for name in names]
    assert len({collision_key(name) for name in landed}) == len(names)


def test_a_folder_full_of_one_name_costs_no_square() -> None:
    taken: dict[str, int] = {}
    for name, _ in product(["a", "A", "a (2)"], range(20_000)):
        free_name(name, taken)
    assert len(taken) == 60_000
