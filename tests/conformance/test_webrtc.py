"""The WebRTC connection, aiortc on both ends over loopback addresses of this machine."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from p2pnb.errors import PathError, ProtocolError
from p2pnb.paths import _sctp, webrtc
from p2pnb.paths.webrtc import MAX_CANDIDATES, WebRtcNegotiation, screened
from p2pnb.protocol.hub import IceServer
from tests.conformance.check_connection import CHECKS, Listener, check_connection
from tests.conformance.webrtc_pairs import check_closed_lane, check_lanes, closed, connect, pair_of

webrtc_pair = pair_of()


@pytest.mark.asyncio
@pytest.mark.parametrize("check", CHECKS)
async def test_webrtc(check: str) -> None:
    await check_connection(webrtc_pair, check)


@pytest.mark.asyncio
@pytest.mark.parametrize("check", CHECKS)
async def test_webrtc_with_an_aiortc_that_is_not_as_we_know_it(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sctp, "tune", lambda association: None)
    await check_connection(webrtc_pair, check)


@pytest.mark.asyncio
async def test_message_that_comes_before_the_listener_is_kept() -> None:
    near, far = await connect()
    listener = Listener()
    near.attach(Listener())
    for number in range(10):
        near.send(bytes([number]))
    await asyncio.sleep(0.2)
    far.attach(listener)
    assert await listener.heard(10) == [bytes([number]) for number in range(10)]
    await closed(near, far)


@pytest.mark.asyncio
async def test_attempt_that_nobody_answers_ends_and_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webrtc, "CONNECT_TIMEOUT_S", 0.2)
    before = len(psutil.Process().net_connections("udp"))
    negotiation = WebRtcNegotiation([])
    await negotiation.offer()
    assert len(psutil.Process().net_connections("udp")) > before
    with pytest.raises(PathError):
        await negotiation.connected()
    await negotiation.close()
    assert len(psutil.Process().net_connections("udp")) == before


async def _only_this_task_is_left(before: int) -> None:
    deadline = asyncio.get_running_loop().time() + 5
    while len(asyncio.all_tasks()) > 1 or len(psutil.Process().net_connections("udp")) > before:
        assert asyncio.get_running_loop().time() < deadline, [task.get_stack(limit=1) for task in asyncio.all_tasks()]
        await asyncio.sleep(0.02)


@pytest.mark.asyncio
async def test_closing_goes_on_to_its_end_though_its_caller_is_cancelled() -> None:
    before = len(psutil.Process().net_connections("udp"))
    offering, answering = WebRtcNegotiation([]), WebRtcNegotiation([])
    await offering.accept_answer(await answering.answer(await offering.offer()))
    for turns, negotiation in ((1, offering), (3, answering)):
        closing = asyncio.create_task(negotiation.close())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
    await _only_this_task_is_left(before)


@pytest.mark.asyncio
async def test_attempt_closed_in_the_moment_of_its_success_leaves_nothing() -> None:
    """aioice has found a pair, and `connect()` has not heard of it yet."""
    before = len(psutil.Process().net_connections("udp"))
    offering, answering = WebRtcNegotiation([]), WebRtcNegotiation([])
    offer = await offering.offer()
    ice: Any = offering._pc.sctp.transport.transport._connection  # type: ignore[union-attr]
    tell, closings = ice._check_list_state.put_nowait, list[asyncio.Task[None]]()

    def told(state: int) -> None:
        if not closings:
            closings.append(asyncio.create_task(offering.close()))
        tell(state)

    ice._check_list_state.put_nowait = told
    await offering.accept_answer(await answering.answer(offer))
    while not closings:
        await asyncio.sleep(0.01)
    await closings[0]
    await answering.close()
    await _only_this_task_is_left(before)


# ── many at once ────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.slow
@pytest.mark.asyncio
async def test_many_lanes_open_carry_and_close_without_a_trace() -> None:
    await check_lanes("aiortc")


@pytest.mark.asyncio
async def test_closing_one_lane_brings_nothing_twice_and_nothing_late() -> None:
    await check_closed_lane("aiortc")


# ── servers and addresses ───────────────────────────────────────────────────────────────────────────
@pytest.fixture
def sent_to(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, int]]:
    """Every address that a datagram of this process went to, and every name that was resolved."""
    import asyncio.selector_events as events

    seen: set[tuple[str, int]] = set()
    send = events._SelectorDatagramTransport.sendto  # type: ignore[attr-defined]
    resolve = socket.getaddrinfo

    def noting(transport: Any, data: bytes, addr: Any = None) -> None:
        if addr is not None:
            seen.add((addr[0], addr[1]))
        send(transport, data, addr)

    def resolving(host: Any, *rest: Any, **more: Any) -> Any:
        if host and not str(host).replace(".", "").isdigit() and ":" not in str(host):
            seen.add((str(host), 0))
        return resolve(host, *rest, **more)

    monkeypatch.setattr(events._SelectorDatagramTransport, "sendto", noting)  # type: ignore[attr-defined]
    monkeypatch.setattr(socket, "getaddrinfo", resolving)
    return seen


def _own_addresses() -> set[str]:
    return {a.address.split("%")[0] for addresses in psutil.net_if_addrs().values() for a in addresses}


@pytest.mark.asyncio
async def test_without_servers_nobody_outside_is_asked(sent_to: set[tuple[str, int]]) -> None:
    """aiortc's default is a public STUN server: an empty list has to stay an empty list (T16)."""
    async with webrtc_pair():
        pass
    assert sent_to, "the connectivity checks were not seen, so this shows nothing"
    assert {address for address, _ in sent_to} <= _own_addresses()


@pytest.mark.asyncio
async def test_offer_without_servers_names_only_own_addresses() -> None:
    negotiation = WebRtcNegotiation([])
    sdp = await negotiation.offer()
    await negotiation.close()
    candidates = [line.split() for line in sdp.splitlines() if line.startswith("a=candidate:")]
    assert candidates
    assert {fields[7] for fields in candidates} == {"host"}
    assert {fields[4] for fields in candidates} <= _own_addresses()


@pytest.mark.asyncio
async def test_given_server_is_the_one_that_is_asked(sent_to: set[tuple[str, int]]) -> None:
    asked = asyncio.get_running_loop().create_future()

    class Stun(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            if not asked.done():
                asked.set_result(data)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Stun, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    negotiation = WebRtcNegotiation([IceServer([f"stun:127.0.0.1:{port}"])])
    gathering = asyncio.create_task(negotiation.offer())
    assert (await asyncio.wait_for(asked, 5))[:2] == b"\x00\x01", "a STUN binding request"
    gathering.cancel()
    await asyncio.gather(gathering, return_exceptions=True)
    await negotiation.close()
    transport.close()
    assert {address for address, _ in sent_to} <= _own_addresses()


# ── what a hostile member may name (T15) ────────────────────────────────────────────────────────────
_SDP = (
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n"
)


def _candidate(address: str, port: int | str = 40_000, transport: str = "udp", kind: str = "host") -> str:
    return f"a=candidate:1 1 {transport} 2130706431 {address} {port} typ {kind}"


def _kept(*lines: str) -> list[str]:
    return [line for line in screened(_SDP + "\r\n".join(lines) + "\r\n").split("\r\n") if "candidate" in line]


_LOOPBACK = _candidate("127.0.0.1")
_ICE = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n"

HONEST = ["10.0.0.5", "192.168.1.20", "172.16.0.1", "100.64.0.1", "203.0.113.9", "8.8.8.8", "2001:db8::1", "fd00::1",
          "2606:4700::1111"]  # fmt: skip
FORBIDDEN = [
    "127.0.0.1", "127.1.2.3", "::1", "0.0.0.0", "::", "169.254.169.254", "169.254.0.1", "fe80::1", "224.0.0.1",
    "239.255.255.250", "255.255.255.255", "ff02::1", "ff0e::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
    "::ffff:0.0.0.0", "::ffff:224.0.0.1", "::ffff:7f00:1", "localhost", "metadata.google.internal",
    "4f2c9ab0-0000-4000-8000-000000000000.local", "example.org", "2130706433", "0x7f000001", "017700000001", "127.1",
    "0177.0.0.1", "1.2.3", "", "fe80::1%eth0",
]  # fmt: skip
DISGUISED = ["::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::", "0.1.2.3",
             "240.0.0.1", "fec0::1"]  # fmt: skip


@pytest.mark.parametrize("address", HONEST)
def test_honest_addresses_are_kept(address: str) -> None:
    assert _kept(_candidate(address)) == [_candidate(address)]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_addresses_that_no_honest_peer_names_are_dropped(address: str) -> None:
    assert _kept(_candidate(address), _candidate("10.0.0.5")) == [_candidate("10.0.0.5")]


@pytest.mark.parametrize("address", DISGUISED)
def test_addresses_in_disguise_are_dropped(address: str) -> None:
    assert _kept(_candidate(address)) == []


@pytest.mark.parametrize("port", [0, 1, 22, 53, 80, 443, 1023, 65_536, 70_000, -1, "x", ""])
def test_system_and_impossible_ports_are_dropped(port: int | str) -> None:
    assert _kept(_candidate("10.0.0.5", port)) == []


@pytest.mark.parametrize("transport", ["tcp", "TCP", "ssltcp", "", "udp6"])
def test_only_udp_is_taken(transport: str) -> None:
    assert _kept(_candidate("10.0.0.5", transport=transport)) == []
    assert _kept(_candidate("10.0.0.5", transport="UDP")) != []


def test_flood_of_candidates_is_cut() -> None:
    lines = [_candidate(f"10.0.{number // 250}.{number % 250}") for number in range(5000)]
    assert _kept(*lines) == lines[:MAX_CANDIDATES]


@pytest.mark.parametrize(
    "line",
    ["a=candidate:", "a=candidate:1", "a=candidate:1 1 udp 1 10.0.0.5 40000",
     "a=candidate:1 1 udp 1 10.0.0.5 40000 typ", "a=candidate:1 1 udp", "a=candidate:" + "x" * 100_000],
)  # fmt: skip
def test_candidates_cut_short_are_dropped(line: str) -> None:
    assert _kept(line) == []


@pytest.mark.parametrize("line", [f" {_LOOPBACK}", _LOOPBACK.upper(), _LOOPBACK.replace("a=", "A=")])
def test_candidate_in_another_spelling_reaches_no_parser(line: str) -> None:
    """aiortc reads lines that begin with a=candidate: and no others."""
    from aiortc.sdp import SessionDescription

    kept = screened(f"{_SDP}{_ICE}{line}\r\n")
    try:
        media = SessionDescription.parse(kept).media
    except ValueError:
        return
    assert [candidate.ip for section in media for candidate in section.ice_candidates] == []


@pytest.mark.parametrize(
    "ending",
    ["\n", "\r\n", "\r\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"],
)
def test_other_line_ends_smuggle_no_candidate(ending: str) -> None:
    """What the screen takes for one line must not be several to the parser behind it (str.splitlines)."""
    from aiortc.sdp import SessionDescription

    text = f"{_SDP}{_ICE}a=mid:0{ending}{_LOOPBACK}\r\n"
    try:
        media = SessionDescription.parse(screened(text)).media
    except (ValueError, ProtocolError):
        return
    assert [candidate.ip for section in media for candidate in section.ice_candidates] == []


@pytest.mark.parametrize("size", ["1", "16384", "65535", "-1", "", "9" * 20, "x", "0x10000", "²"])
def test_messages_too_small_for_records_are_refused(size: str) -> None:
    """Else every send would fail, and where nobody expects it."""
    with pytest.raises(ProtocolError):
        screened(f"{_SDP}a=max-message-size:{size}\r\n")


@pytest.mark.parametrize("size", ["0", "65536", "262144", "1073741823"])
def test_messages_large_enough_for_records_are_taken(size: str) -> None:
    assert f"a=max-message-size:{size}" in screened(f"{_SDP}a=max-message-size:{size}\r\n")


@pytest.mark.parametrize("kind", ["audio", "video", "text", "image", "applicationx"])
def test_extra_media_is_refused(kind: str) -> None:
    with pytest.raises(ProtocolError, match="more than a data channel"):
        screened(_SDP + f"m={kind} 9 UDP/TLS/RTP/SAVPF 0\r\n")


@pytest.mark.parametrize(
    "sdp", ["", "v=0\r\n", _SDP + _SDP, "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n" * 50]
)
def test_not_exactly_one_data_channel_is_refused(sdp: str) -> None:
    with pytest.raises(ProtocolError):
        screened(sdp)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "sdp",
    [_SDP, _SDP.replace("webrtc-datachannel", ""), _SDP + "a=fingerprint:sha-256 zz\r\na=setup:actpass\r\n",
     _SDP + "a=fingerprint:md5 00\r\n", "m=application \r\n", "\0m=application x y z\r\nm=application 9 a b\r\n",
     _SDP + "a=sctp-port:99999999999999999999\r\n", _SDP + "a=max-message-size:-1\r\na=setup:x\r\n"],
)  # fmt: skip
async def test_description_that_can_not_be_used_is_an_error(sdp: str) -> None:
    negotiation = WebRtcNegotiation([])
    try:
        with pytest.raises((ProtocolError, PathError)):
            await negotiation.answer(sdp)
    finally:
        await negotiation.close()


@pytest.mark.asyncio
async def test_forbidden_candidates_are_never_sent_to(
    sent_to: set[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """T15 end to end: a member's offer with hostile candidates; what goes out is what was allowed."""
    monkeypatch.setattr(webrtc, "CONNECT_TIMEOUT_S", 1.0)
    hostile = WebRtcNegotiation([])
    sdp = await hostile.offer()
    lines = [line for line in sdp.splitlines() if not line.startswith("a=candidate:")]
    place = next(number for number, line in enumerate(lines) if line.startswith("a=ice-ufrag"))
    lines[place:place] = [_candidate(address) for address in FORBIDDEN if address and "%" not in address]
    lines[place:place] = [_candidate("10.255.255.254", 22), _candidate("127.0.0.1", 45_678)]
    victim = WebRtcNegotiation([])
    await victim.answer("\r\n".join(lines) + "\r\n")
    with pytest.raises(PathError):
        await victim.connected()
    await victim.close()
    await hostile.close()
    assert sent_to == set()


@pytest.mark.asyncio
async def test_wrong_fingerprint_gives_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """T13: whoever answers the checks but isn't whom the session named is not connected."""
    monkeypatch.setattr(webrtc, "CONNECT_TIMEOUT_S", 2.0)
    offering, answering = WebRtcNegotiation([]), WebRtcNegotiation([])
    answer = await answering.answer(await offering.offer())
    # one digit of every fingerprint changed
    forged = re.sub(
        r"(a=fingerprint:\S+ )(.)", lambda found: found[1] + ("1" if found[2] == "0" else "0"), answer
    )
    assert forged != answer
    await offering.accept_answer(forged)
    with pytest.raises(PathError):
        await offering.connected()
    await offering.close()
    await answering.close()
