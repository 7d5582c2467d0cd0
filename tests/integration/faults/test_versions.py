"""F27: kernels of different versions. They understand each other, or say in one sentence why not.

That a hub names its version is tested in `tests/server/test_hub_router`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from p2pnb.errors import AuthenticationError
from tests.integration.faults.remote import Remote
from tests.integration.meeting import Meeting, still_lives, until

# What a release with another protocol, and one with more to say than this one knows, would be like.
OTHER_PROTOCOL = "import p2pnb.protocol.wire; p2pnb.protocol.wire.PROTOCOL = 'p2pnb/2'"
MORE_TO_SAY = """
import msgspec, p2pnb.engine.link as link_module
from p2pnb.engine.thread import engine
class News(msgspec.Struct, tag="news-of-a-later-version", array_like=True):
    text: str
features = link_module.Link.features
link_module.Link.features = property(lambda link: (*features.fget(link), "a-later-feature"))
async def say_news():
    link, = room._member.links.values()
    link.send(News("nobody knew this then"))
"""
JOIN = """
def join(link):
    global room
    try:
        room = watch(p2pnb.join(link, "Ben", relay="only"))
    except p2pnb.errors.P2PError as error:
        return f"{type(error).__name__}: {error}"
    return "joined"
"""


@pytest.fixture
def ben() -> Iterator[Remote]:
    """A kernel of its own, to be made one of another version before it joins."""
    with Remote("Ben") as remote:
        remote.run(JOIN)
        yield remote


def _join(ben: Remote, meeting: Meeting) -> Any:
    assert meeting.invite is not None
    return ben.value(f"join({meeting.invite.link!r})")


def test_kernels_with_different_protocols_both_hear_why(meeting: Meeting, ben: Remote) -> None:
    ada, carl = meeting.people("Ada", "Carl")
    ben.run(OTHER_PROTOCOL)
    assert _join(ben, meeting).startswith(f"{AuthenticationError.__name__}: The peers here speak another version")
    for room in (ada, carl):
        until(lambda room=room: room.notices, f"{room.name} is told", 5)  # type: ignore[misc]
        assert "another version of p2pnb" in str(room.notices[0])
        assert not room.locked
    still_lives(ada, carl)


def test_what_a_later_version_has_more_is_left_out(meeting: Meeting, ben: Remote) -> None:
    ada = meeting.create("Ada")
    ben.run(MORE_TO_SAY)
    assert _join(ben, meeting) == "joined"
    until(lambda: ada.peers and ada.peers["Ben"].state == "here", "Ben is here")
    ben.run("engine().call(say_news()); room.chat('everybody knows this')")
    until(lambda: [m.text for m in ada.messages if not m.mine] == ["everybody knows this"], "the chat is here")
    ada.chat("understood")
    assert ben.until("[text for _, text, _ in heard]") == ["understood"]
    assert not ada.notices
