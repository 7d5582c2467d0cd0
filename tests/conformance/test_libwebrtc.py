"""The WebRTC connection on libwebrtc, among its own and with aiortc at the other end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time

import psutil  # type: ignore[import-untyped]
import pytest

from p2pnb.errors import PathError, ProtocolError
from p2pnb.paths import _sctp, webrtc
from p2pnb.paths.webrtc import Engine, WebRtcNegotiation, engines
from tests.conformance.check_connection import CHECKS, Listener, check_connection
from tests.conformance.webrtc_pairs import check_closed_lane, check_lanes, closed, connect, pair_of

pytestmark = pytest.mark.skipif(
    "libwebrtc" not in engines(), reason="NOT TESTED: the package wrtc (p2pnb[fast]) is not installed"
)

PAIRS: list[tuple[Engine, Engine]] = [("libwebrtc", "libwebrtc"), ("libwebrtc", "aiortc"), ("aiortc", "libwebrtc")]


@pytest.mark.asyncio
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("near", "far"), PAIRS)
async def test_libwebrtc(near: Engine, far: Engine, check: str) -> None:
    await check_connection(pair_of(near, far), check)


@pytest.mark.asyncio
async def test_connection_names_its_engine() -> None:
    near, far = await connect("libwebrtc", "aiortc")
    assert (near.engine, far.engine) == ("libwebrtc", "aiortc")
    await closed(near, far)


@pytest.mark.slow
@pytest.mark.asyncio
async def test_many_lanes_open_carry_and_close_without_a_trace() -> None:
    await check_lanes("libwebrtc")


@pytest.mark.asyncio
async def test_closing_one_lane_brings_nothing_twice_and_nothing_late() -> None:
    await check_closed_lane("libwebrtc")


@pytest.mark.asyncio
async def test_sender_that_does_not_heed_the_high_water_loses_the_lane_at_most() -> None:
    """libwebrtc refuses what is beyond its own queue of 16 MiB: an end of the lane, not an exception in the engine."""
    near, far = await connect("libwebrtc", "libwebrtc")
    listener, heard = Listener(), Listener()
    near.attach(listener)
    far.attach(heard)
    message = bytes(60_000)
    for _ in range(600):
        near.send(message)
    await listener.until(lambda: listener.lost or len(heard.messages) == 600, "sent, or the lane ended")
    await closed(near, far)


# ── what comes from the peer, and where packets go ──────────────────────────────────────────────────
@pytest.mark.asyncio
@pytest.mark.parametrize(
    "change",
    [("a=ice-ufrag:", "a=ice-ufrag:x\r\na=x:"), ("a=fingerprint:sha-256", "a=fingerprint:md5"),
     ("a=setup:", "a=setup:holdconn\r\na=x:"), ("a=sctp-port:", "a=sctp-port:99999999999999999999\r\na=x:"),
     ("webrtc-datachannel", "5000"), ("a=mid:0", "a=mid:" + "9" * 50_000), ("v=0", "v=9"), ("t=0 0", "t=")],
)  # fmt: skip
async def test_hostile_description_is_an_error_or_no_connection(
    change: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webrtc, "CONNECT_TIMEOUT_S", 0.5)
    hostile, victim = WebRtcNegotiation([], "aiortc"), WebRtcNegotiation([], "libwebrtc")
    sdp = await hostile.offer()
    assert change[0] in sdp

    async def attempt() -> None:
        await victim.answer(sdp.replace(*change))
        await victim.connected()

    with pytest.raises((ProtocolError, PathError)):
        await attempt()
    await victim.close()
    await hostile.close()


@pytest.mark.asyncio
async def test_wrong_fingerprint_gives_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """T13."""
    monkeypatch.setattr(webrtc, "CONNECT_TIMEOUT_S", 2.0)
    offering, answering = WebRtcNegotiation([], "libwebrtc"), WebRtcNegotiation([], "libwebrtc")
    answer = await answering.answer(await offering.offer())
    place = answer.index("a=fingerprint:sha-256 ") + len("a=fingerprint:sha-256 ")
    forged = answer[:place] + ("1" if answer[place] == "0" else "0") + answer[place + 1 :]
    await offering.accept_answer(forged)
    with pytest.raises(PathError):
        await offering.connected()
    await offering.close()
    await answering.close()


@pytest.mark.asyncio
async def test_attempt_that_nobody_answers_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webrtc, "CONNECT_TIMEOUT_S", 0.2)
    negotiation = WebRtcNegotiation([], "libwebrtc")
    await negotiation.offer()
    with pytest.raises(PathError):
        await negotiation.connected()
    await negotiation.close()


def _run(code: str, *prefix: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a Python of its own: what ends a process, and what leaves it, shows only there."""
    command = [*prefix, sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


_PAIR = """
import asyncio, os, sys
from tests.conformance.webrtc_pairs import connect, closed
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "end", ["return connections", "sys.exit(0)", "await closed(*connections)", "os.kill(os.getpid(), 2)"]
)
def test_process_ends_whatever_is_open(end: str) -> None:
    done = _run(f"""{_PAIR}
async def main():
    connections = await connect("libwebrtc", "libwebrtc")
    connections[0].send(bytes(60_000))
    {end}
try:
    kept = asyncio.run(main())
except KeyboardInterrupt:
    pass
print("ended")
""")
    assert done.returncode == 0, done.stderr
    assert "sys.exit" in end or "ended" in done.stdout


@pytest.mark.slow
def test_forked_child_ends_and_the_parent_goes_on() -> None:
    """F34: the engine's threads don't exist in the child; dropping its objects there must not wait for them."""
    done = _run(f"""{_PAIR}
import gc
from tests.conformance.check_connection import Listener
async def main():
    near, far = await connect("libwebrtc", "libwebrtc")
    pid = os.fork()
    if not pid:
        del near, far
        gc.collect()
        os._exit(7)
    for _ in range(100):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        await asyncio.sleep(0.1)
    else:
        os.kill(pid, 9)
    assert os.waitstatus_to_exitcode(status) == 7 and ended
    heard = Listener()
    far.attach(heard)
    near.send(b"still here")
    assert await heard.heard(1) == [b"still here"]
    await closed(near, far)
asyncio.run(main())
""")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_without_servers_nothing_goes_to_strangers() -> None:
    """T16, seen from outside: in a network of its own, no packet leaves for anything but the two ends."""
    own_network = ["unshare", "--net", "--map-root-user", "--user"]
    if subprocess.run([*own_network, "true"], capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: this system allows no network namespaces")
    done = _run(f"""{_PAIR}
import socket, subprocess
for command in ("link set lo up", "link add out type veth peer name far", "addr add 10.99.0.1/24 dev out",
                "link set out up", "link set far up", "route add default via 10.99.0.2"):
    subprocess.run(["ip", *command.split()], check=True)
tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
tap.bind(("out", 3))
tap.setblocking(False)
async def main():
    await closed(*await connect("libwebrtc", "libwebrtc"))
asyncio.run(main())
left = []
while True:
    try:
        packet, (_, kind, *_) = tap.recvfrom(2048)
    except BlockingIOError:
        break
    protocol = packet[9] if kind == 0x0800 else packet[6] if kind == 0x86DD else 0
    if kind == 0x0806 or protocol in (6, 17):
        left.append((hex(kind), packet[:48].hex()))
print("left", left)
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
subprocess.run(["ip", "neigh", "add", "10.99.0.2", "lladdr", "02:00:00:00:00:02", "dev", "out"], check=True)
sender.sendto(b"seen", ("192.0.2.1", 9))
tap.settimeout(5)  # which ends in an exception: a tap that sees nothing shows nothing
while b"seen" not in tap.recv(2048):
    pass
""", *own_network)
    assert done.returncode == 0, done.stderr
    assert "left []" in done.stdout, done.stdout


@pytest.mark.asyncio
async def test_peer_that_never_ends_a_message_costs_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """T41."""
    attacker, victim = await connect("aiortc", "libwebrtc")
    heard = Listener()
    victim.attach(heard)
    attacker.attach(Listener())
    monkeypatch.setattr(_sctp, "LAST", 0)
    before, sent, end = psutil.Process().memory_info().rss, 0, time.monotonic() + 4
    while sent < 40_000_000 and not heard.lost and time.monotonic() < end:
        if attacker.buffered < 1_000_000:
            attacker.send(bytes(60_000))
            sent += 60_000
        await asyncio.sleep(0)
    assert sent > 5_000_000 or heard.lost, "the attack was not carried out"
    assert heard.messages == []
    assert psutil.Process().memory_info().rss - before < 32_000_000
    await closed(attacker, victim)


# ── speed ───────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.asyncio
async def test_opens_quickly() -> None:
    began = time.monotonic()
    near, far = await connect("libwebrtc", "libwebrtc")
    assert time.monotonic() - began < 2
    await closed(near, far)
    await asyncio.sleep(0)
