"""What a hub that records everything can read: nothing (T1, T16, T43)."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

import p2pnb
from p2pnb.engine.link import Link
from p2pnb.paths.relay import RelayConnection
from p2pnb.protocol.records import PathCipher
from p2pnb.protocol.wire import TcpOffer
from tests.integration.hostile_hub import HostileHub
from tests.integration.meeting import WORDS, Meeting, see_each_other, texts, until

CHAT = "Needle in the chat: Größe 42"
OBJECT = {"needle-key-of-object": "needle-value-of-object"}
CONTENT = b"needle-content-of-file " * 4000  # compresses well: a compressed copy would not be searched for
NAMES = ("Adalovelace", "Bencharles")


def needles_found(recording: bytes, needles: list[str]) -> list[str]:
    """Return the needles that stand in the recording, raw or in an encoding a hub's operator would try."""
    folded = recording.lower()
    return [
        needle
        for needle in needles
        if any(form.lower() in folded for form in _texts(needle)) or any(form in recording for form in _base64(needle))
    ]


def _texts(needle: str) -> list[bytes]:
    raw = needle.encode()
    return [
        raw, raw.hex().encode(), json.dumps(needle)[1:-1].encode(), needle.encode("utf-16-le"),
        needle.encode("utf-16-be"),
    ]  # fmt: skip


def _base64(needle: str) -> list[bytes]:
    """Base64 of a text that stands anywhere in what was encoded: the characters that don't depend on what is around."""
    raw = needle.encode()
    forms = []
    for shift, first in ((0, 0), (1, 2), (2, 3)):
        last = (shift + len(raw)) * 8 // 6
        forms.append(base64.b64encode(b"\0" * shift + raw)[first:last])
    return forms


def _exchange_everything(meeting: Meeting, folder: Path, relay: str) -> list[str]:
    """Say, send and answer one of each kind; return every text that nobody else may read."""
    ada, ben = meeting.people(*NAMES, relay=relay)
    source = folder / "needle-file-name.bin"
    source.write_bytes(CONTENT)
    ada.chat(CHAT)
    until(lambda: CHAT in texts(ben), "chat")
    ada.send(OBJECT, "needle-object-name").result(10)
    ben.send_file(source).result(20)
    assert ben.receive("needle-object-name", 5) == OBJECT
    assert ada.receive("needle-file-name.bin", 5).read_bytes() == CONTENT
    verification = ada.peers[NAMES[1]].verification
    assert len(verification) == 4
    return [
        CHAT, "needle-object-name", "needle-key-of-object", "needle-value-of-object", "needle-file-name.bin",
        CONTENT[:22].decode(), *NAMES, *WORDS, "-".join(verification), " ".join(verification),
    ]  # fmt: skip


def test_hub_sees_no_word_name_text_or_content(hub: HostileHub, meeting: Meeting, tmp_path: Path) -> None:
    needles = _exchange_everything(meeting, tmp_path, "only")
    assert len(hub.recording) > len(CONTENT)
    assert needles_found(bytes(hub.recording), needles) == []


def test_hub_sees_no_description_or_address_of_a_direct_path(
    hub: HostileHub, meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered: list[str] = []
    send = Link.send

    def noting(link: Link, frame: object) -> None:
        offered.append(getattr(frame, "sdp", ""))
        send(link, frame)  # type: ignore[arg-type]

    monkeypatch.setattr(Link, "send", noting)
    ada, ben = meeting.people(*NAMES, relay="fallback", direct_tcp=False)
    until(lambda: sum(map(bool, offered)) >= 2, "an offer and an answer", 20)
    sdp = "\n".join(offered)
    found = re.findall(r"a=(?:ice-ufrag|ice-pwd|fingerprint:sha-256|candidate):?([^\r\n]+)", sdp)
    addresses = re.findall(r"a=candidate:\S+ 1 udp \d+ (\S+) (\d+)", sdp)
    needles = [*found, *(f"{address} {port}" for address, port in addresses), "a=candidate", "ice-ufrag", "IN IP4"]
    assert addresses, "the offer names no address, so this shows nothing"
    until(lambda: "webrtc" in (ada.peers[NAMES[1]].path, ben.peers[NAMES[0]].path), "a direct path", 20)
    assert needles_found(bytes(hub.recording), needles) == []


def test_hub_sees_no_address_or_token_of_a_direct_tcp_path(
    hub: HostileHub, meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered: list[TcpOffer] = []
    send = Link.send

    def noting(link: Link, frame: Any) -> None:
        if isinstance(frame, TcpOffer):
            offered.append(frame)
        send(link, frame)

    monkeypatch.setattr(Link, "send", noting)
    ada, ben = meeting.people(*NAMES, relay="fallback")
    until(lambda: ada.peers[NAMES[1]].path == ben.peers[NAMES[0]].path == "tcp", "a direct path", 20)
    assert len(offered) == 2, "one offer each way"
    addresses = {address for offer in offered for address, _ in offer.targets} - {"127.0.0.1"}
    secrets = [secret for offer in offered for secret in (offer.token, offer.same_host) if secret]
    recording = bytes(hub.recording)
    assert secrets
    assert needles_found(recording, [*addresses, "tcp-offer"]) == []
    for secret in secrets:
        assert secret not in recording
        assert secret.hex().encode() not in recording.lower()
        assert base64.b64encode(secret)[:-2] not in recording


def test_relay_only_member_offers_no_address(meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    described: list[object] = []
    send = Link.send

    def noting(link: Link, frame: object) -> None:
        if link.host.my_name == "Ada":
            described.append(getattr(frame, "sdp", "") or getattr(frame, "targets", ""))
        send(link, frame)  # type: ignore[arg-type]

    monkeypatch.setattr(Link, "send", noting)
    monkeypatch.setattr("p2pnb.engine.upgrade.FIRST_AFTER_S", 0.0)
    ada = meeting.create("Ada", relay="only")
    ben = meeting.join("Ben", relay="fallback")
    see_each_other([ada, ben])
    ben.send(list(range(10_000)), "numbers").result(10)
    assert ada.receive("numbers", 5) == list(range(10_000))
    assert [what for what in described if what] == []
    assert ada._member is not None and ada._member._tcp is None, "nor does it listen"
    assert ada.peers["Ben"].path == ben.peers["Ada"].path == "relay"


def test_needle_search_finds_what_is_sent_in_clear(
    hub: HostileHub, meeting: Meeting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same test against a member that forgot to seal: it has to go red."""
    send = RelayConnection.send
    leaked: list[bytes] = []
    seal = PathCipher.seal

    def seal_and_leak(cipher: PathCipher, frame: bytes) -> bytes:
        leaked.append(bytes(frame))
        return seal(cipher, frame)

    def send_both(connection: RelayConnection, message: bytes) -> None:
        send(connection, message)
        hub.recording.extend(leaked[-1] if leaked else b"")

    monkeypatch.setattr(PathCipher, "seal", seal_and_leak)
    monkeypatch.setattr(RelayConnection, "send", send_both)
    needles = _exchange_everything(meeting, tmp_path, "only")
    found = needles_found(bytes(hub.recording), needles)
    assert {CHAT, "needle-object-name", "needle-file-name.bin", CONTENT[:22].decode(), *NAMES} <= set(found)


@pytest.mark.parametrize("form", ["raw", "hex", "base64", "utf-16", "json"])
def test_needle_search_knows_every_encoding(form: str) -> None:
    text = "Größe of a needle"
    hay = {
        "raw": text.encode(),
        "hex": text.encode().hex().upper().encode(),
        "base64": base64.b64encode(b"ab" + text.encode() + b"c"),
        "utf-16": text.encode("utf-16-le"),
        "json": json.dumps(text).encode(),
    }[form]
    assert needles_found(b"\x00\x01" + hay + b"\xff", [text]) == [text]
    assert needles_found(hay[:-6], [text + "?"]) == []


def test_no_repr_or_notebook_output_holds_the_words(meeting: Meeting, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    ada, ben = meeting.people("Ada", "Ben")
    with pytest.raises(p2pnb.errors.WrongCodeError) as wrong:
        meeting.join("Eve", meeting.wrong_invite())
    transfer = ada.send([1, 2, 3], "list")
    transfer.result(5)
    ben.receive("list", 5)
    shown = [
        ada, ada.invite, ada._member.config, ada.peers, ada.peers["Ben"], ada.inbox, ada.offers, transfer, ada.notices,  # type: ignore[union-attr]
        ben.messages, ben.inbox.all(), str(wrong.value), repr(wrong.value), wrong.value.__context__,
        ada._member.__dict__.keys(), caplog.text,
    ]  # fmt: skip
    everything = " ".join(f"{thing!r} {thing!s}" for thing in shown)
    bundled: list[Any] = [ada.invite, transfer, ada.peers, ada.inbox]
    everything += json.dumps([thing._repr_mimebundle_() for thing in bundled], default=str)
    everything += json.dumps(ada._repr_mimebundle_(), default=str)
    assert [word for word in (*WORDS, "wrong-word") if word in everything.lower()] == []
