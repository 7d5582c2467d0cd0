"""Every bound of a hub, with its reason, and the token bucket that meters rates.

A hub is reachable by strangers (a room id is all they need to ask), so nothing they can make it keep is
unbounded: rooms, places, sockets, text, queued bytes. Rates are token buckets because the honest pattern is
a burst (a class of thirty joins at once, fifty peers return after a restart) followed by nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from p2pnb.protocol.hub import MAX_PAYLOAD_BYTES, MIN_PAYLOAD_BYTES

__all__ = ["BYTES_PER_SECOND_MIN", "PEERS_PER_ROOM_MAX", "Bucket", "Rate", "RouterLimits"]

# `Welcome` lists every peer of a room in one text: up to 57 bytes for each, at most twice this many (see
# RouterLimits.peers_per_room), and it has to stay below p2pnb.protocol.hub.MAX_TEXT_BYTES with the ICE servers.
PEERS_PER_ROOM_MAX = 100

# One message pays off its debt within 4 s at this rate; with less, sockets would be left unread for too long.
BYTES_PER_SECOND_MIN = 64 * 1024


@dataclass(frozen=True, slots=True)
class Rate:
    """So much at once, then so much per second."""

    burst: float
    per_second: float


class Bucket:
    """A token bucket; it starts full. Time is given, never read."""

    __slots__ = ("_rate", "_stamp", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._tokens = rate.burst
        self._stamp = now

    def take(self, cost: float, now: float) -> float:
        """Take `cost` if it is there and return 0, else take nothing and return the seconds until it will be."""
        self._refill(now)
        if self._tokens >= cost:
            self._tokens -= cost
            return 0.0
        return (cost - self._tokens) / self._rate.per_second

    def spend(self, cost: float, now: float) -> float:
        """Take `cost` in any case, going into debt, and return the seconds until the debt is paid."""
        self._refill(now)
        self._tokens -= cost
        return max(0.0, -self._tokens / self._rate.per_second)

    def full(self, now: float) -> bool:
        """Tell whether this bucket remembers nothing, so that it may be forgotten."""
        self._refill(now)
        return self._tokens >= self._rate.burst

    def _refill(self, now: float) -> None:
        self._tokens = min(self._rate.burst, self._tokens + max(0.0, now - self._stamp) * self._rate.per_second)
        self._stamp = now


@dataclass(frozen=True, slots=True)
class RouterLimits:
    """What one hub allows. The defaults suit a Jupyter server of one person or a class.

    Peers that resume and the owner may exceed `peers_per_room` up to twice its value: strangers who know the
    room id can take the free places of a room, never the place of somebody who was in it.
    """

    rooms: int = 200  # about 1 kB each while empty
    peers_per_room: int = 100  # presence is all-to-all: 100 joins are 10,000 short texts
    connections: int = 1_000  # half of the 4,096 descriptors that a Jupyter server asks for stay free
    unjoined: int = 200  # sockets before their Join; the oldest goes first, an honest one needs a round trip
    payload_bytes: int = MAX_PAYLOAD_BYTES
    bytes_per_second: int = 0  # from one peer; 0: no rate
    bytes_burst: int = 16 * 1024 * 1024  # only with a rate
    rooms_created: Rate = Rate(60, 0.5)  # for loops that create rooms by mistake
    address_joins: Rate = Rate(200, 5.0)  # newcomers of one address: a class behind one NAT, or one proxy for all
    failed_join_cost: float = 20.0  # 10 guesses at once, then one in 4 s, against 39 bits of room id
    addresses: int = 10_000  # remembered ones; more share one bucket
    room_newcomers: Rate = Rate(300, 5.0)  # each one is told to the whole room
    room_returners: Rate = Rate(400, 20.0)  # separate: a crowd of newcomers can't keep members from coming back
    texts: Rate = Rate(20, 1.0)  # after Join a peer has one thing to say in text: Leave
    no_peer_errors: Rate = Rate(200, 20.0)  # answers to frames for nobody; the rest is dropped silently
    closed_rooms: int = 10_000  # ids that were closed on purpose, so that a ticket doesn't bring them back

    def __post_init__(self) -> None:
        if not 2 <= self.peers_per_room <= PEERS_PER_ROOM_MAX:
            raise ValueError(f"peers_per_room is {self.peers_per_room}; it can be 2 to {PEERS_PER_ROOM_MAX}")
        if not MIN_PAYLOAD_BYTES <= self.payload_bytes <= MAX_PAYLOAD_BYTES:
            least, most = MIN_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES
            raise ValueError(f"payload_bytes is {self.payload_bytes}; it can be {least} to {most}")
        if min(self.rooms, self.connections, self.unjoined) < 1:
            raise ValueError("the numbers of rooms and connections start at 1")
        if self.bytes_per_second and self.bytes_per_second < BYTES_PER_SECOND_MIN:
            raise ValueError(f"bytes_per_second is {self.bytes_per_second}; it is 0 or from {BYTES_PER_SECOND_MIN} up")

    @property
    def bytes_rate(self) -> Rate | None:
        """The rate of one peer's messages in bytes, if there is one."""
        return Rate(self.bytes_burst, self.bytes_per_second) if self.bytes_per_second else None

    @property
    def peers_hard(self) -> int:
        """The most peers of one room, returning ones included."""
        return 2 * self.peers_per_room
