"""The invite: room, secret words and hub, as a link, a short code or a QR code.

    https://hub.example/user/ada/p2pnb/join/7kq2m#olive-harbor-tundra-quill      link
    7kq2m-olive-harbor-tundra-quill                                              code, where the hub is known

The words are only ever in a link's fragment, which browsers send to nobody. They appear where somebody asks
for them by name (`Invite.link`, `.code`, `.words`, the QR codes) and nowhere else: not in `repr`, not in what a
notebook shows and saves for an invite, not in any error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from p2pnb.errors import InviteError, NoHubError
from p2pnb.protocol.hub import valid_room_id
from p2pnb.words import MAX_WORDS, WORDS, normalise_words

__all__ = ["Invite"]

MAX_TEXT_CHARS: Final = 8192  # a mail with a link in it; more was pasted by mistake
MIN_WORDS: Final = 2  # what a room accepts as its own words, see `words.chosen_words`
QUIET_ZONE: Final = 4  # modules of white around a QR code, ISO/IEC 18004 §9.1

_JOIN: Final = "p2pnb/join/"
_AFTER_JOIN: Final = re.compile(r"(?P<room>[^\s<>\"'`#?/&]*)/?(?:\?[^\s<>\"'`#]*)?(?P<rest>\S*)")
_NOT_IN_ADDRESSES: Final = re.compile(r"[\s<>\"'`(){}|]")
_FRAGMENT_END: Final = re.compile(r"[<>\"'`&\])}|]")
# Pages of Jupyter that people copy from the address bar when they are asked for their server's address.
_PAGES: Final = re.compile(r"/(?:lab|tree|notebooks|doc|nbclassic|edit|consoles|terminals|voila)(?=/|$)")
_USERS: Final = re.compile(r"(?:^|/)user$")


@dataclass(frozen=True, slots=True)
class Invite:
    """What somebody needs to join a room. `hub` is the base URL of the Jupyter server (or hub), ending in "/"."""

    room: str
    words: tuple[str, ...] = field(repr=False)
    hub: str

    def __post_init__(self) -> None:
        """Normalise all three; InviteError says which can't be used. Never repeats the words."""
        object.__setattr__(self, "room", _checked_room(self.room))
        object.__setattr__(self, "words", _checked_words(normalise_words(self.words)))
        object.__setattr__(self, "hub", _checked_hub(self.hub))

    @classmethod
    def parse(cls, text: str | Invite, default_hub: str | None = None) -> Invite:
        """Read an invite as people paste it: a link or a code, with whatever stands around it.

        A code needs `default_hub`, the hub to look for the room at; without it NoHubError. InviteError says what
        is wrong with the text and what to do. Neither repeats the secret words.
        """
        if isinstance(text, Invite):
            return text
        if not isinstance(text, str):
            raise InviteError(
                f"An invite is a text or an Invite, not {type(text).__name__}. Pass the link or code you were sent."
            )
        if len(text) > MAX_TEXT_CHARS:
            raise InviteError("This text is too long to be an invite. Pass only the link or the code.")
        text = text.strip()
        if not text:
            raise InviteError("The invite is empty. Pass the link or the code you were sent.")
        link = _find_link(text)
        if link is not None:
            hub, room, words = link
            return cls(room, words, hub)
        if "://" in text:
            raise InviteError(
                f"This address is not a p2pnb link: {_JOIN} is missing in it. Copy the whole link from the invite."
            )
        room, words = _read_code(text)
        if default_hub is None:
            raise NoHubError(
                "A code says which room, but not which server it is on, and no Jupyter server was found for this "
                "process. Ask for the link instead, or pass hub='https://…'."
            )
        return cls(room, words, default_hub)

    @property
    def link(self) -> str:
        """The link to pass on. Holds the secret words."""
        return f"{self.hub}{_JOIN}{self.room}#{'-'.join(quote(word, safe='') for word in self.words)}"

    @property
    def code(self) -> str:
        """The code for people who know the hub. Holds the secret words."""
        return f"{self.room}-{'-'.join(self.words)}"

    @property
    def local_only(self) -> bool:
        """Whether only programs on this computer can open the link."""
        return _is_loopback(urlsplit(self.hub).hostname or "")

    def with_hub(self, url: str) -> Invite:
        """Return the same invite for another address of the hub, as the browser or a configured public URL has it."""
        return Invite(self.room, self.words, url)

    def spelling_hint(self) -> str | None:
        """Say by position which words may be misspelled, for the text of a wrong code; None if nothing can be said."""
        places = [str(place) for place, word in enumerate(self.words, 1) if word not in WORDS]
        if not places or len(places) == len(self.words):  # a room with its own words: nothing to compare with
            return None
        which = f"word {places[0]} is" if len(places) == 1 else f"words {' and '.join(places)} are"
        return f"Of the secret words, {which} not in p2pnb's list. Check the spelling."

    def qr_matrix(self) -> list[list[bool]]:
        """Return the link's QR code, rows of modules, True for dark, without a quiet zone. Holds the secret words."""
        import qrcode

        # Level M: a phone reads it from a scratched or reflecting screen, and it stays small.
        code = qrcode.QRCode(error_correction=qrcode.ERROR_CORRECT_M, border=0)
        code.add_data(self.link)
        code.make(fit=True)
        return [[bool(module) for module in row] for row in code.get_matrix()]

    def qr_svg(self) -> str:
        """Return the link's QR code as an SVG image, dark on white with a quiet zone of 4 modules."""
        matrix = self.qr_matrix()
        side = len(matrix) + 2 * QUIET_ZONE
        dark = "".join(
            f"M{start + QUIET_ZONE} {row + QUIET_ZONE}h{length}v1h-{length}z"
            for row, modules in enumerate(matrix)
            for start, length in _dark_runs(modules)
        )
        # White stays white in dark themes: many phones don't read inverted codes.
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}" shape-rendering="crispEdges" '
            f'role="img" aria-label="QR code of the invite"><path fill="#fff" d="M0 0h{side}v{side}H0z"/>'
            f'<path fill="#000" d="{dark}"/></svg>'
        )

    def qr_text(self, *, dark_background: bool = True) -> str:
        """Return the link's QR code as lines of half blocks, for terminals.

        On a dark background the blocks are the light modules, on a light one the dark modules.
        """
        matrix = self.qr_matrix()
        side = len(matrix) + 2 * QUIET_ZONE
        rows = [[False] * side for _ in range(side + side % 2)]
        for row, modules in enumerate(matrix):
            rows[row + QUIET_ZONE][QUIET_ZONE:-QUIET_ZONE] = modules
        blocks = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
        return "\n".join(
            "".join(
                blocks[above ^ dark_background, below ^ dark_background] for above, below in zip(*pair, strict=True)
            )
            for pair in zip(rows[::2], rows[1::2], strict=True)
        )

    def __repr__(self) -> str:
        return f"<Invite room {self.room} at {urlsplit(self.hub).netloc} (words hidden)>"

    __str__ = __repr__

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What a notebook shows and saves: no words."""
        return {"text/plain": f"{self!r}\nShow the room's panel to pass it on, or print(invite.link)."}


def _find_link(text: str) -> tuple[str, str, tuple[str, ...]] | None:
    if re.search(r"p2pnb%2fjoin%2f", text, re.IGNORECASE):  # a link inside a link, as mail filters make them
        text = unquote(text)
    text = re.sub(r"(p2pnb/join/[^\s#]*)%23", r"\1#", text, flags=re.IGNORECASE)
    text = re.sub(r"-[ \t]*\r?\n[>\s]*", "-", text)  # a line that a mail program broke
    before, join, after = text.partition(_JOIN)
    found = _AFTER_JOIN.match(after)
    if not join or not found:
        return None
    hub = _NOT_IN_ADDRESSES.split(before)[-1]
    scheme = max(hub.rfind("https://"), hub.rfind("http://"))
    if scheme >= 0:
        hub = hub[scheme:]
    elif hub.startswith("[") and "]" not in hub:  # a bracket around the link, not around an IPv6 address
        hub = hub[1:]
    room = _checked_room(unquote(found["room"]))
    if not found["rest"].startswith("#"):
        raise InviteError("The link is incomplete. Copy the whole link: the part after # holds the secret words.")
    words = normalise_words(unquote(_FRAGMENT_END.split(found["rest"][1:], maxsplit=1)[0]))
    if not words:
        raise InviteError("The link is incomplete. Copy the whole link: the part after # holds the secret words.")
    if not hub:
        raise InviteError("The link is incomplete: the server's address is missing. Copy the whole link.")
    if "://" not in hub:
        hub = f"{'http' if _is_loopback(_host_of(hub)) else 'https'}://{hub}"
    return hub, room, _checked_words(words)


def _read_code(text: str) -> tuple[str, tuple[str, ...]]:
    parts = normalise_words(unquote(text).removeprefix("#"))
    if len(parts) >= MIN_WORDS and all(part in WORDS for part in parts):
        raise InviteError(
            "The code is incomplete: the room's id before the secret words is missing. Copy the whole code."
        )
    if not parts or not valid_room_id(parts[0]):
        raise InviteError(
            "This is neither a p2pnb link nor a code. A code begins with the room's id (5 or more letters and digits, "
            "never 0, 1, i, l or o), then the secret words: 7kq2m-word-word-word-word."
        )
    if len(parts) == 1:
        raise InviteError(
            "The code is incomplete: the secret words after the room's id are missing. Copy the whole code."
        )
    return parts[0], _checked_words(parts[1:])


def _checked_room(room: str) -> str:
    folded = room.strip().lower()
    if not valid_room_id(folded):
        # Not repeated: in a mangled invite a secret word may stand in its place.
        raise InviteError(
            "The room's id in this invite is not one: it has 5 to 32 letters and digits, never 0, 1, i, l or o. "
            "Copy the invite again."
        )
    return folded


def _checked_words(words: tuple[str, ...]) -> tuple[str, ...]:
    if not MIN_WORDS <= len(words) <= MAX_WORDS:
        raise InviteError(
            f"This invite has {len(words)} secret word{'' if len(words) == 1 else 's'}; there are {MIN_WORDS} to "
            f"{MAX_WORDS}. Copy the whole invite and nothing else."
        )
    return words


def _checked_hub(hub: str) -> str:
    """Return the base URL; what belongs to a page or a login (query, fragment, token) is cut off."""
    url = hub.strip()
    if re.search(r"[\s\\\x00-\x1f\x7f<>\"]", url):
        raise InviteError("The hub's address contains characters that no address has. Copy it again.")
    try:
        parts: SplitResult = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in {"http", "https"} or not host:
        raise InviteError("The hub's address must begin with http:// or https://, like https://hub.example/user/ada/.")
    if "@" in parts.netloc:
        raise InviteError(
            "The hub's address holds a user name or password, which everybody invited would see. Leave it out."
        )
    path = parts.path
    if _JOIN in path:
        path = path[: path.index(_JOIN)]
    pages = (page.start() for page in _PAGES.finditer(path))
    # A user of a JupyterHub may be called "lab".
    path = path[: next((start for start in pages if not _USERS.search(path[:start])), len(path))]
    shown_host = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}[parts.scheme]
    netloc = shown_host if port in {None, default} else f"{shown_host}:{port}"
    return urlunsplit((parts.scheme, netloc, quote(path.rstrip("/"), safe="/%@:~!$&'()*+,;=") + "/", "", ""))


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    import ipaddress

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _host_of(hub: str) -> str:
    try:
        return urlsplit(f"//{hub}").hostname or ""
    except ValueError:
        return ""


def _dark_runs(modules: list[bool]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for place, dark in enumerate(modules):
        if dark and runs and sum(runs[-1]) == place:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        elif dark:
            runs.append((place, 1))
    return runs
