"""What has to hold of invites: they are read however people paste them, and never give the words away unasked."""

from __future__ import annotations

import copy
import pickle
import traceback
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnb.errors import InviteError, NoHubError
from p2pnb.invite import Invite
from p2pnb.protocol.hub import ROOM_ALPHABET
from p2pnb.words import WORDS

WORDS_USED = ("olive", "hamlet", "tundra", "quill")
LINK = "https://hub.example/user/ada/p2pnb/join/7kq2m#olive-hamlet-tundra-quill"
INVITE = Invite("7kq2m", WORDS_USED, "https://hub.example/user/ada/")


def test_link_and_code_hold_what_was_put_in() -> None:
    assert INVITE.link == LINK
    assert INVITE.code == "7kq2m-olive-hamlet-tundra-quill"
    assert (INVITE.room, INVITE.words, INVITE.hub) == ("7kq2m", WORDS_USED, "https://hub.example/user/ada/")


@given(
    room=st.text(ROOM_ALPHABET, min_size=5, max_size=32).filter(lambda room: room not in WORDS),
    words=st.lists(st.sampled_from(WORDS), min_size=2, max_size=8),
    hub=st.sampled_from(
        ["http://localhost:8888/", "https://h.example/a%40b/", "http://[::1]:8/x/", "https://h.example:8443/"]
    ),
)
def test_every_invite_survives_its_link_and_its_code(room: str, words: list[str], hub: str) -> None:
    invite = Invite(room, tuple(words), hub)
    assert Invite.parse(invite.link) == invite
    assert Invite.parse(invite.code, default_hub=hub) == invite


def test_own_words_in_any_script_survive_link_and_code() -> None:
    invite = Invite("7kq2m", ("grüne", "wiese", "im", "mai", "数据"), "https://hub.example/")
    assert Invite.parse(invite.link) == invite == Invite.parse(invite.code, "https://hub.example/")
    assert invite.link.isascii()


@pytest.mark.parametrize(
    "pasted",
    [
        LINK,
        f"  {LINK}\n",
        f"<{LINK}>",
        f'"{LINK}"',
        f"'{LINK}',",
        f"`{LINK}`",
        f"Come in: {LINK}. See you!",
        f"Come in ({LINK}), see you!",
        f"[join]({LINK})",
        f"see https://other.example/page and\n{LINK}\nsoon",
        LINK.removeprefix("https://"),
        f"go to {LINK.removeprefix('https://')} now",
        LINK.replace("-", "%2D"),
        LINK.replace("-", "%20"),
        LINK.replace("-", "+"),
        LINK.replace("#", "%23"),
        LINK.replace("#", "/#"),
        LINK.replace("#", "?token=secret&x=1#"),
        LINK.replace("7kq2m", "7KQ2M").replace("olive", "Olive"),
        LINK.replace("tundra-", "tundra-\n> "),
        f"https://mail.example/?url={quote(LINK, safe='')}&data=1",
        f"[{LINK.removeprefix('https://')}]",
    ],
)
def test_a_link_is_found_however_it_was_pasted(pasted: str) -> None:
    assert Invite.parse(pasted) == INVITE


@pytest.mark.parametrize(
    "typed",
    [
        "7kq2m-olive-hamlet-tundra-quill",
        "7KQ2M OLIVE HAMLET TUNDRA QUILL",
        " 7kq2m, olive, hamlet, tundra, quill. ",
        "7kq2m—olive–hamlet_tundra.quill",
        "7kq2m#olive-hamlet-tundra-quill",
        "7kq2m%20olive%20hamlet%20tundra%20quill",
        '"7kq2m-olive-hamlet-tundra-quill"',
    ],
)
def test_a_code_is_read_with_any_separators_and_case(typed: str) -> None:
    assert Invite.parse(typed, default_hub="https://hub.example/user/ada") == INVITE


def test_an_invite_is_its_own_parse() -> None:
    assert Invite.parse(INVITE) is INVITE


def test_a_link_without_scheme_on_this_computer_is_plain_http() -> None:
    assert Invite.parse("localhost:8888/p2pnb/join/7kq2m#olive-hamlet").hub == "http://localhost:8888/"
    assert Invite.parse("[::1]:8888/p2pnb/join/7kq2m#olive-hamlet", None).local_only


def test_the_path_of_a_hub_keeps_its_escapes() -> None:
    assert Invite.parse("http://h.example/a%40b/p2pnb/join/7kq2m#olive-hamlet").hub == "http://h.example/a%40b/"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("x" * 10_000, "too long"),
        ("https://hub.example/p2pnb/join/7kq2m", "part after # holds the secret words"),
        ("https://hub.example/p2pnb/join/7kq2m#", "part after # holds the secret words"),
        ("https://hub.example/p2pnb/join/7kq2m#---", "part after # holds the secret words"),
        ("https://hub.example/p2pnb/join/7kq2m#olive", "1 secret word;"),
        ("https://hub.example/p2pnb/join/7kq2m#" + "-".join(["olive"] * 17), "17 secret words"),
        ("https://hub.example/p2pnb/join/#olive-hamlet-tundra", "room's id"),
        ("https://hub.example/p2pnb/join/room0#olive-hamlet-tundra", "room's id"),
        ("https://ada:pw@hub.example/p2pnb/join/7kq2m#olive-hamlet", "user name or password"),
        ("ftp://hub.example/p2pnb/join/7kq2m#olive-hamlet", "http"),
        ("https://hub.example:99999/p2pnb/join/7kq2m#olive-hamlet", "http"),
        ("/p2pnb/join/7kq2m#olive-hamlet", "http"),
        ("p2pnb/join/7kq2m#olive-hamlet", "server's address is missing"),
        ("https://hub.example/lab#olive-hamlet", "not a p2pnb link"),
        ("7kq2m", "words after the room's id are missing"),
        ("7kq2m-olive", "1 secret word;"),
        ("olive-hamlet-tundra-quill", "room's id before the secret words is missing"),
        ("my secret words", "neither a p2pnb link nor a code"),
        ("🙂", "neither a p2pnb link nor a code"),
    ],
)
def test_what_is_wrong_is_said_without_the_words(text: str, says: str) -> None:
    with pytest.raises(InviteError) as refusal:
        Invite.parse(text, default_hub="https://hub.example/")
    assert says in str(refusal.value)
    shown = "".join(traceback.format_exception(refusal.value)[-1:]).lower()
    assert not any(word in shown for word in (*WORDS_USED, "ada:pw"))
    assert refusal.value.__cause__ is None


def test_a_value_of_another_type_is_refused_by_name() -> None:
    with pytest.raises(InviteError, match="not int"):
        Invite.parse(7)  # type: ignore[arg-type]


def test_a_code_needs_a_hub() -> None:
    with pytest.raises(NoHubError, match="Ask for the link") as refusal:
        Invite.parse(INVITE.code)
    assert not any(word in str(refusal.value) for word in WORDS_USED)


@given(
    st.text(max_size=300) | st.from_regex(r"(https?://)?[a-z.@:]{0,9}/?p2pnb/join/[a-z2-9%#/?&-]{0,40}", fullmatch=True)
)
def test_any_text_gives_an_invite_or_an_invite_error(text: str) -> None:
    try:
        invite = Invite.parse(text, default_hub="https://hub.example/")
    except InviteError:
        return
    assert Invite.parse(invite.link) == invite


def test_a_long_line_is_read_at_once() -> None:
    with pytest.raises(InviteError):
        Invite.parse("p2pnb/join" * 800)


def test_nothing_shown_unasked_holds_a_word() -> None:
    shown = [repr(INVITE), str(INVITE), f"{INVITE}", f"{[INVITE]}", *INVITE._repr_mimebundle_().values()]
    assert repr(INVITE) == "<Invite room 7kq2m at hub.example (words hidden)>"
    assert set(INVITE._repr_mimebundle_()) == {"text/plain"}
    assert not any(word in text for text in shown for word in WORDS_USED)


def test_invites_are_values() -> None:
    assert pickle.loads(pickle.dumps(INVITE)) == copy.deepcopy(INVITE) == INVITE
    assert len({INVITE, Invite.parse(LINK)}) == 1
    with pytest.raises(AttributeError):
        INVITE.room = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given_url", "hub"),
    [
        ("https://hub.example", "https://hub.example/"),
        ("HTTPS://Hub.Example:443/", "https://hub.example/"),
        ("http://hub.example:80", "http://hub.example/"),
        ("http://localhost:8888/?token=0123", "http://localhost:8888/"),
        ("http://localhost:8888/lab?token=0123", "http://localhost:8888/"),
        ("http://localhost:8888/lab/tree/deep/note.ipynb#cell", "http://localhost:8888/"),
        ("https://h.example/user/ada/notebooks/x.ipynb", "https://h.example/user/ada/"),
        ("https://h.example/user/lab/", "https://h.example/user/lab/"),
        ("https://h.example/user/lab/lab/tree/x", "https://h.example/user/lab/"),
        ("https://h.example/a%40b", "https://h.example/a%40b/"),
        ("https://h.example/p2pnb/join/7kq2m#olive", "https://h.example/"),
        ("http://[2001:db8::1]:9/", "http://[2001:db8::1]:9/"),
    ],
)
def test_another_address_is_reduced_to_the_base_url(given_url: str, hub: str) -> None:
    assert INVITE.with_hub(given_url) == Invite("7kq2m", WORDS_USED, hub)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hub.example",
        "ftp://hub.example",
        "https://",
        "https://a@hub.example/",
        "https://hub.example/\nx",
        "http://[::1/",
        "javascript:alert(1)",
        "https://h\\x/",
        "https://h/<b>",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InviteError):
        INVITE.with_hub(url)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost:8888", True),
        ("x.localhost", True),
        ("127.0.0.1:8888", True),
        ("127.9.9.9", True),
        ("[::1]:1", True),
        ("0.0.0.0:8888", True),
        ("192.168.1.5:8888", False),
        ("hub.example", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
    ],
)
def test_a_link_says_if_only_this_computer_can_open_it(host: str, local: bool) -> None:
    assert Invite("7kq2m", WORDS_USED, f"http://{host}/").local_only is local


def test_a_spelling_hint_gives_positions_only() -> None:
    assert INVITE.spelling_hint() is None
    hint = Invite("7kq2m", ("olive", "hamlte", "tundra", "quil"), INVITE.hub).spelling_hint()
    assert hint == "Of the secret words, words 2 and 4 are not in p2pnb's list. Check the spelling."
    assert Invite("7kq2m", ("unsere", "wiese"), INVITE.hub).spelling_hint() is None


def test_the_qr_code_is_read_back_as_the_link() -> None:
    zxing = pytest.importorskip("zxingcpp", reason="reading QR codes back needs the package zxing-cpp")
    numpy = pytest.importorskip("numpy")
    for matrix in (_padded(INVITE.qr_matrix()), _drawn_svg(INVITE.qr_svg()), _read_blocks(INVITE.qr_text())):
        image = numpy.array([[0 if dark else 255 for dark in row] for row in matrix], dtype=numpy.uint8)
        found = zxing.read_barcodes(numpy.kron(image, numpy.ones((4, 4), dtype=numpy.uint8)))
        assert [code.text for code in found] == [LINK]


def test_the_svg_has_a_white_quiet_zone_and_nothing_active() -> None:
    root = ElementTree.fromstring(INVITE.qr_svg())
    side = len(INVITE.qr_matrix()) + 8
    assert root.attrib["viewBox"] == f"0 0 {side} {side}"
    assert [child.attrib["fill"] for child in root] == ["#fff", "#000"]
    assert {child.tag.rpartition("}")[2] for child in root} == {"path"}
    assert not any(word in INVITE.qr_svg() for word in WORDS_USED)


def test_the_terminal_code_is_the_same_on_a_light_background() -> None:
    assert _read_blocks(INVITE.qr_text(dark_background=False), dark_background=False) == _read_blocks(INVITE.qr_text())


def _padded(matrix: list[list[bool]]) -> list[list[bool]]:
    side = len(matrix) + 8
    empty = [[False] * side for _ in range(4)]
    return [*empty, *([False] * 4 + row + [False] * 4 for row in matrix), *empty]


def _drawn_svg(svg: str) -> list[list[bool]]:
    root = ElementTree.fromstring(svg)
    side = int(root.attrib["viewBox"].split()[2])
    drawn = [[False] * side for _ in range(side)]
    for run in root[1].attrib["d"].removeprefix("M").removesuffix("z").split("zM"):
        start, _, length = run.removesuffix("z").partition("h")
        column, row = map(int, start.split())
        for place in range(column, column + int(length.partition("v")[0])):
            drawn[row][place] = True
    return drawn


def _read_blocks(text: str, *, dark_background: bool = True) -> list[list[bool]]:
    halves = {" ": (False, False), "▀": (True, False), "▄": (False, True), "█": (True, True)}
    lines = text.split("\n")
    return [[halves[char][half] ^ dark_background for char in line] for line in lines for half in (0, 1)]
