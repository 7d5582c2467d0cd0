"""Which STUN and TURN servers peers of this hub are told to use.

The default is none: no address of a user goes to a third party unless somebody configured it. Sources of
entries share one shape, `IceSource`: a pure function of peer and time, so that the router can ask for a grant
while it admits a peer. A service that has to be asked over the network (rejected: an async method, since a
stranger's join would then start requests of ours) keeps its last answer and renews it in the background.

TURN credentials made from a shared secret follow draft-uberti-behave-turn-rest-00, which coturn's
`use-auth-secret` implements: the user name is the expiry in Unix seconds, a colon and a label; the credential
is base64(HMAC-SHA1(secret, user name)). They are good for an hour at most and belong to one peer id.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from p2pnb.protocol.hub import IceServer

__all__ = [
    "CREDENTIAL_LIFETIME_MAX_S",
    "ICE_TEXT_BYTES_MAX",
    "IceConfigError",
    "IceGrant",
    "IceSource",
    "IceSources",
    "SharedSecretTurn",
    "StaticIce",
    "parse_ice_server",
]

CREDENTIAL_LIFETIME_MAX_S: Final = 3600.0  # stolen ones die soon; peers ask again by joining again
ICE_TEXT_BYTES_MAX: Final = 3 * 1024  # all entries as JSON: they travel in Welcome, beside up to 200 peers

# RFC 7064 (stun), RFC 7065 (turn); only what browsers take: host or [v6], port, ?transport= for turn.
_HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])"
_STUN_URL: Final = re.compile(rf"stuns?:{_HOST}(?::[0-9]{{1,5}})?")
_TURN_URL: Final = re.compile(rf"turns?:{_HOST}(?::[0-9]{{1,5}})?(?:\?transport=(?:udp|tcp))?")


class IceConfigError(ValueError):
    """An ICE server in the configuration can't be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class IceGrant:
    """What one peer is told: entries, and the seconds until their credentials expire (0: they don't)."""

    servers: tuple[IceServer, ...] = ()
    expires_in: float = 0.0


class IceSource(Protocol):
    """Where entries come from."""

    def grant(self, peer: str, wall: float) -> IceGrant:
        """Return the entries for peer id `peer` (hex) at Unix time `wall`; must not block."""


class StaticIce:
    """The same entries for everybody, as configured."""

    def __init__(self, servers: Sequence[IceServer] = ()) -> None:
        self._grant = IceGrant(tuple(servers))

    def grant(self, peer: str, wall: float) -> IceGrant:
        return self._grant


class SharedSecretTurn:
    """Time-limited credentials for a TURN server that shares a secret with this hub.

    `urls` are turn: and turns: URLs, `secret` is coturn's static-auth-secret, `lifetime` is in seconds.
    """

    def __init__(self, urls: Sequence[str], secret: bytes, lifetime: float = CREDENTIAL_LIFETIME_MAX_S) -> None:
        if not urls or not all(_TURN_URL.fullmatch(url) for url in urls):
            raise IceConfigError("turn_urls takes turn: and turns: URLs, such as 'turn:turn.example.org:3478'")
        if len(secret) < 16:
            raise IceConfigError("the TURN secret has fewer than 16 bytes; make one with `openssl rand -hex 32`")
        if not 60 <= lifetime <= CREDENTIAL_LIFETIME_MAX_S:
            raise IceConfigError(f"TURN credentials can live 60 to {CREDENTIAL_LIFETIME_MAX_S:.0f} s, not {lifetime}")
        self._urls = list(urls)
        self._secret = secret
        self._lifetime = float(lifetime)

    def grant(self, peer: str, wall: float) -> IceGrant:
        username = f"{int(wall + self._lifetime)}:{peer[:8]}"
        credential = base64.b64encode(hmac.digest(self._secret, username.encode(), "sha1")).decode()
        server = IceServer(urls=self._urls, username=username, credential=credential)
        return IceGrant((server,), self._lifetime)


class IceSources:
    """Several sources as one; the earliest expiry counts."""

    def __init__(self, sources: Sequence[IceSource]) -> None:
        self._sources = tuple(sources)
        size = len(msgspec.json.encode(self.grant("0" * 32, 2.0**33).servers))
        if size > ICE_TEXT_BYTES_MAX:
            raise IceConfigError(f"the ICE servers take {size} bytes; at most {ICE_TEXT_BYTES_MAX} fit a welcome")

    def grant(self, peer: str, wall: float) -> IceGrant:
        grants = [source.grant(peer, wall) for source in self._sources]
        servers = tuple(server for grant in grants for server in grant.servers)
        return IceGrant(servers, min((grant.expires_in for grant in grants if grant.expires_in), default=0.0))


def parse_ice_server(entry: Mapping[str, object]) -> IceServer:
    """Return the entry that a configuration dictionary describes; raises IceConfigError.

    The keys are those of RTCIceServer (W3C WebRTC §4.2.4): `urls` (a URL or a list), `username`, `credential`.
    """
    unknown = set(entry) - {"urls", "username", "credential"}
    if unknown:
        raise IceConfigError(f"an ICE server has urls, username and credential, not {', '.join(sorted(unknown))}")
    urls = entry.get("urls")
    if isinstance(urls, str):
        urls = [urls]
    if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
        raise IceConfigError("an ICE server needs 'urls': one URL or a list of them")
    username, credential = entry.get("username", ""), entry.get("credential", "")
    if not isinstance(username, str) or not isinstance(credential, str):
        raise IceConfigError("username and credential of an ICE server are strings")
    for url in urls:
        if _TURN_URL.fullmatch(url):
            if not username or not credential:
                raise IceConfigError(f"{url} needs username and credential")
        elif not _STUN_URL.fullmatch(url):
            raise IceConfigError(f"{url!r} is not a stun:, stuns:, turn: or turns: URL")
    return IceServer(urls=list(urls), username=username, credential=credential)
