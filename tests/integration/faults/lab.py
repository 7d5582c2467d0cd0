"""A network of namespaces: one per peer, and one in the middle with the hub, through which everything passes.

    ada 10.77.1.2, fd77:1::2 ──┐
    ben 10.77.2.2, fd77:2::2 ──┤ middle 10.77.x.1: hub, forwarding, nft rules that tests add and take away
    carl 10.77.3.2, fd77:3::2 ─┘

What goes straight from peer to peer is forwarded in the middle and so can be dropped apart from what goes to the
hub, in one direction or both, whatever transport it is and whichever addresses the engine picks.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import shutil
import subprocess
from typing import Final

CLONE_NEWNET: Final = 0x40000000
_TABLE: Final = """
table inet faults {
  chain direct { type filter hook forward priority 0; policy accept; }
  chain to_hub { type filter hook input priority 0; policy accept; }
  chain from_hub { type filter hook output priority 0; policy accept; }
  counter straight { }
  counter hubward { }
  chain count_direct { type filter hook forward priority -10; counter name straight; }
  chain count_hub { type filter hook input priority -10; iifname "to*" counter name hubward; }
}
"""


def why_not() -> str:
    """Return why there can be no lab here; empty if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "nft", "sysctl") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} missing"
    name = f"p2pf-{secrets.token_hex(2)}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    try:
        probe = ["ip", "netns", "exec", name, "nft", "add", "table", "inet", "t"]
        tried = made if made.returncode else subprocess.run(probe, capture_output=True, text=True, check=False)
        veth = ["ip", "-n", name, "link", "add", "va", "type", "veth", "peer", "name", "vb"]
        tried = tried if tried.returncode else subprocess.run(veth, capture_output=True, text=True, check=False)
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return f"no network namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


class Lab:
    """The namespaces. A context manager; they are removed with the block."""

    def __init__(self, *peers: str, ipv6: bool = True) -> None:
        self.peers = peers
        self._ipv6 = ipv6 and os.path.exists("/proc/net/if_inet6")
        self._prefix = f"p2pf-{secrets.token_hex(2)}"
        self._home: int | None = None

    @property
    def middle(self) -> str:
        return f"{self._prefix}-m"

    def gateway(self, peer: str) -> str:
        """The address of the middle, as this peer sees it."""
        return f"10.77.{self.peers.index(peer) + 1}.1"

    def command(self, peer: str = "") -> list[str]:
        """What to put before a command so that it runs in the network of this peer (of the middle)."""
        return ["ip", "netns", "exec", f"{self._prefix}-{peer}" if peer else self.middle]

    def __enter__(self) -> Lab:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.come_home()
        self._remove()

    # ── what a test does with it ────────────────────────────────────────────────────────────────────
    def drop_direct(self, source: str, target: str, what: str = "") -> None:
        """Let nothing (or only not `what`, in nft's words) pass from one peer straight to another."""
        self._nft(f"add rule inet faults direct iifname {self._link(source)} oifname {self._link(target)} {what} drop")

    def cut_direct(self, one: str, other: str) -> None:
        """Drop both directions between two peers."""
        self.drop_direct(one, other)
        self.drop_direct(other, one)

    def drop_hub(self, peer: str, *, up: bool = True, down: bool = True) -> None:
        """Let nothing pass between a peer and the hub any more, in these directions."""
        if up:
            self._nft(f"add rule inet faults to_hub iifname {self._link(peer)} drop")
        if down:
            self._nft(f"add rule inet faults from_hub oifname {self._link(peer)} drop")

    def block_udp(self) -> None:
        """Drop every datagram, as a strict firewall does."""
        for chain in ("direct", "to_hub"):
            self._nft(f"add rule inet faults {chain} meta l4proto udp drop")

    def block(self, family: str) -> None:
        """Drop everything of "ip" or "ip6" between peers, from now on."""
        version = "ipv4" if family == "ip" else "ipv6"
        self._nft(f"add rule inet faults direct meta nfproto {version} drop")

    def lose(self, percent: int) -> None:
        """Lose so many of a hundred packets between peers, at random."""
        self._nft(f"add rule inet faults direct numgen random mod 100 < {percent} drop")

    def move(self, peer: str) -> None:
        """Give a peer another address, as a laptop that changes networks: what it had open gets no answer any more."""
        number = self.peers.index(peer) + 1
        name = f"{self._prefix}-{peer}"
        _run("ip", "-n", name, "addr", "del", f"10.77.{number}.2/24", "dev", "up0")
        _run("ip", "-n", name, "addr", "add", f"10.77.{number}.77/24", "dev", "up0")
        _run("ip", "-n", name, "route", "replace", "default", "via", f"10.77.{number}.1")
        _run("ip", "-n", name, "addr", "flush", "dev", "up0", "scope", "global", "to", f"fd77:{number}::/64")

    def direct_bytes(self) -> int:
        """Count the bytes that went straight from peer to peer so far."""
        return self._counted("straight")

    def hub_bytes(self) -> int:
        """Count the bytes that reached the hub so far."""
        return self._counted("hubward")

    def heal(self) -> None:
        """Let everything pass again."""
        for chain in ("direct", "to_hub", "from_hub"):
            self._nft(f"flush chain inet faults {chain}")

    def enter(self) -> None:
        """Put the calling thread, and what it starts, into the middle."""
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        place = os.open(f"/run/netns/{self.middle}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _set_network(place)
        finally:
            os.close(place)

    def come_home(self) -> None:
        """Undo `enter`, on the same thread."""
        if self._home is not None:
            _set_network(self._home)
            os.close(self._home)
            self._home = None

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    def _make(self) -> None:
        _run("ip", "netns", "add", self.middle)
        _run("ip", "-n", self.middle, "link", "set", "lo", "up")
        inside = self.command()
        _run(*inside, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        if self._ipv6:
            _run(*inside, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
        subprocess.run([*inside, "nft", "-f", "-"], input=_TABLE, text=True, check=True, capture_output=True)
        for number, peer in enumerate(self.peers, 1):
            name = f"{self._prefix}-{peer}"
            _run("ip", "netns", "add", name)
            _run("ip", "-n", self.middle, "link", "add", f"to{number}", "type", "veth", "peer", "name", "up0")
            _run("ip", "-n", self.middle, "link", "set", "up0", "netns", name)
            for place, link, end in ((self.middle, f"to{number}", 1), (name, "up0", 2)):
                _run("ip", "-n", place, "addr", "add", f"10.77.{number}.{end}/24", "dev", link)
                _run("ip", "-n", place, "link", "set", link, "up")
            _run("ip", "-n", name, "link", "set", "lo", "up")
            _run("ip", "-n", name, "route", "add", "default", "via", f"10.77.{number}.1")
            if self._ipv6:
                for place, link, end in ((self.middle, f"to{number}", 1), (name, "up0", 2)):
                    _run("ip", "-n", place, "addr", "add", f"fd77:{number}::{end}/64", "dev", link, "nodad")
                _run("ip", "-n", name, "-6", "route", "add", "default", "via", f"fd77:{number}::1")

    def _remove(self) -> None:
        for name in (*(f"{self._prefix}-{peer}" for peer in self.peers), self.middle):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def _link(self, peer: str) -> str:
        return f"to{self.peers.index(peer) + 1}"

    def _counted(self, name: str) -> int:
        command = [*self.command(), "nft", "-j", "list", "counter", "inet", "faults", name]
        listed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return int(next(one["counter"]["bytes"] for one in listed["nftables"] if "counter" in one))

    def _nft(self, command: str) -> None:
        subprocess.run([*self.command(), "nft", *command.split()], check=True, capture_output=True)


def _set_network(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
