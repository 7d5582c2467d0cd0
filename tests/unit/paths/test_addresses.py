"""Which addresses a peer may point our dials at (T15), and what we say about this machine."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
from pathlib import Path

import pytest

from p2pnb.paths import addresses
from p2pnb.paths.addresses import dialable, forbidden, own_addresses, same_host_tag
from p2pnb.protocol.wire import MAX_TCP_TARGETS

FINE = [
    "10.0.0.1", "172.16.5.4", "192.168.1.20", "100.64.0.1", "8.8.8.8", "223.255.255.254", "198.51.100.7",
    "2001:4860:4860::8888", "fd00::1", "fc12:3456::1", "::ffff:192.168.1.1", "64:ff9b::8.8.8.8", "2002:808:808::1",
]  # fmt: skip

NEVER = {
    "this network": ["0.0.0.0", "0.1.2.3", "0.255.255.255"],
    "loopback": ["127.0.0.1", "127.0.0.2", "127.255.255.254", "::1"],
    "link-local and cloud metadata": ["169.254.169.254", "169.254.0.1", "fe80::1", "febf::1", "fe80::1%eth0",
                                      "fe80::1%1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "reserved and broadcast": ["240.0.0.1", "255.255.255.255"],
    "unspecified": ["::"],
    "site-local": ["fec0::1"],
    "zones": ["fd00::1%lo", "2001:db8::1%2"],
    "IPv4-mapped": ["::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:169.254.169.254", "::ffff:0.0.0.0", "::ffff:224.0.0.1",
                    "0:0:0:0:0:ffff:127.0.0.1"],
    "IPv4-compatible": ["::127.0.0.1", "::7f00:1", "::169.254.169.254", "::0.0.0.2"],
    "NAT64": ["64:ff9b::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::0.0.0.0"],
    "6to4": ["2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:7f00:1:1234::1", "2002::"],
    "other spellings of numbers": ["2130706433", "0x7f000001", "017700000001", "0x7f.1", "127.1", "10.1", "0177.0.0.1",
                                   "127.0.0.1.", "192.168.001.001", "0xa.0.0.1", "10.0.0.0x1"],
    "names": ["localhost", "example.com", "metadata.google.internal", "ip6-localhost", "10.0.0.1.nip.io"],
    "decoration": ["", " ", " 10.0.0.1", "10.0.0.1 ", "10.0.0.1\n", "10.0.0.1\0", "[::1]", "[fd00::1]", "10.0.0.1:80",
                   "10.0.0.1/8", "http://10.0.0.1", "１０.0.0.1", "10.0.0.1%lo", "fd00::1%"],
}  # fmt: skip


@pytest.mark.parametrize("text", FINE)
def test_addresses_where_peers_live_may_be_dialled(text: str) -> None:
    assert dialable(text, 40_000, same_host=False)
    assert dialable(text, 40_000, same_host=True)


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in NEVER.items() for text in texts])
def test_addresses_that_are_never_dialled(kind: str, text: str) -> None:
    assert not dialable(text, 40_000, same_host=False), kind
    if text not in ("127.0.0.1", "::1"):
        assert not dialable(text, 40_000, same_host=True), "a peer on this machine has no more to name than loopback"


@pytest.mark.parametrize("text", ["127.0.0.1", "::1"])
def test_loopback_is_for_peers_on_this_machine_and_in_its_plain_form(text: str) -> None:
    assert dialable(text, 40_000, same_host=True)
    assert not dialable(text, 40_000, same_host=False)


@pytest.mark.parametrize("port", [-1, 0, 1, 22, 25, 80, 443, 1023, 65_536, 2**31, 2**63])
def test_system_ports_and_impossible_ones_are_never_dialled(port: int) -> None:
    assert not dialable("10.0.0.1", port, same_host=True)
    assert not dialable("127.0.0.1", port, same_host=True)


@pytest.mark.parametrize("port", [1024, 65_535])
def test_ports_that_a_peer_may_have(port: int) -> None:
    assert dialable("10.0.0.1", port, same_host=False)


def test_every_form_of_a_forbidden_ipv4_address_inside_ipv6_is_forbidden() -> None:
    for inner in ("127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.251", "255.255.255.255"):
        number = int(ipaddress.IPv4Address(inner))
        for outer in ((0xFFFF << 32) | number, (0x64FF9B << 96) | number, (0x2002 << 112) | (number << 80)):
            assert forbidden(ipaddress.IPv6Address(outer)), ipaddress.IPv6Address(outer)


def test_own_addresses_are_such_as_a_peer_would_dial() -> None:
    mine = own_addresses()
    assert len(mine) + 1 <= MAX_TCP_TARGETS // 2, "with loopback, and room for more"
    assert all(dialable(address, 40_000, same_host=False) for address in mine)
    versions = [ipaddress.ip_address(address).version for address in mine]
    assert versions == sorted(versions)
    assert len(set(mine)) == len(mine)


def test_tag_is_the_same_on_this_machine_and_another_for_every_session() -> None:
    assert same_host_tag(b"k" * 32) == same_host_tag(b"k" * 32)
    assert same_host_tag(b"k" * 32) != same_host_tag(b"j" * 32)
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        assert len(same_host_tag(b"k" * 32)) == 32
        assert boot.read_text().strip().encode() not in same_host_tag(b"k" * 32)


def test_tag_differs_in_another_network_namespace() -> None:
    """Loopback there is another loopback."""
    code = "from p2pnb.paths.addresses import same_host_tag; print(same_host_tag(b'k' * 32).hex())"
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", code], capture_output=True, text=True, check=False,
        cwd=Path(addresses.__file__).parents[2],
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"NOT TESTED: another network namespace ({done.stderr.strip()[-100:]})")
    assert done.stdout.strip()
    assert bytes.fromhex(done.stdout.strip()) != same_host_tag(b"k" * 32)


def test_no_tag_where_the_system_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no peer is taken for one on this machine: an empty tag matches nothing."""

    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)
    assert same_host_tag(b"k" * 32) == b""
