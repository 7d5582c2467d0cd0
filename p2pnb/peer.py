"""`Peer`: somebody else in the room, as a user sees them."""

from __future__ import annotations

from typing import Any

from p2pnb.engine.link import Link, LinkState
from p2pnb.words import verification_words

__all__ = ["Peer"]


class Peer:
    """Another member of the room. Properties always tell the present state."""

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._name = name
        self._verified = b""  # the words' bytes that were compared: a new session starts unverified

    @property
    def id(self) -> str:
        """The hub's id of this peer: 32 hex digits, new for every process that joins."""
        return self._link.peer_id.hex()

    @property
    def name(self) -> str:
        """Shown name, unique in this room: a second "Ben" is "Ben (2)"."""
        return self._name

    @property
    def kind(self) -> str:
        """ "kernel", "script" or "browser"."""
        kind = self._link.profile.kind if self._link.profile else ""
        return kind if kind in ("kernel", "script", "browser") else "peer"

    @property
    def state(self) -> str:
        """ "connecting", "here", "away" (may come back) or "gone"."""
        if self._link.state is LinkState.HERE and not self._link.present and self._link.carrier in (None, "relay"):
            return "away"
        return self._link.state.value

    @property
    def path(self) -> str | None:
        """What carries frames and bulk now: "relay", "webrtc", "tcp" or None."""
        return self._link.carrier

    @property
    def paths(self) -> tuple[str, ...]:
        """The transports that stand, the best first; see `lanes` for how many of each."""
        return tuple(dict.fromkeys(self._link.transports))

    @property
    def lanes(self) -> dict[str, int]:
        """How many parallel connections stand, by transport."""
        return self._link.lanes

    @property
    def engine(self) -> str:
        """What is behind the WebRTC paths to this peer: "aiortc", "libwebrtc", or "" without any."""
        return self._link.webrtc_engine

    @property
    def rtt(self) -> float | None:
        """Round trip over `path` in seconds, None before the first measurement."""
        return self._link.round_trip_s

    @property
    def owner(self) -> bool:
        """True if the hub says that this peer created the room."""
        return self._link.owner

    @property
    def verification(self) -> tuple[str, ...]:
        """Four words that both of you see if nobody stands between you. Compare them by voice."""
        return verification_words(self._link.verification) if self._link.verification else ()

    @property
    def verified(self) -> bool:
        """True once you said that the words are the same."""
        return bool(self._verified) and self._verified == self._link.verification

    def verify(self, value: bool = True) -> None:
        """Note that you compared the verification words with this peer (or take it back)."""
        self._verified = self._link.verification if value else b""

    def __repr__(self) -> str:
        over = f" over {self.path}" if self.path else ""
        if self.path == "webrtc":
            over += f" ({self.engine})"
        if self.path and (count := self.lanes.get(self.path, 1)) > 1:
            over += f" × {count}"
        return f"<Peer {self.name!r} {self.state}{over}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self)}
