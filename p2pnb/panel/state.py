"""A room, written down as the slices the front end shows.

Everything here is plain JSON. Strings from peers are cut to a length the panel can show and are freed of
what JSON over a comm can't carry (lone surrogates); numbers are finite. Nothing touches `InboxItem.value`
of an object: showing what is there must not decode it.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from p2pnb.errors import P2PError
from p2pnb.panel import protocol
from p2pnb.panel.rooms import InboxItem, Message, Offer, Peer, Room, Share, Transfer, TransferPart
from p2pnb.protocol import wire

__all__ = ["invite", "items", "messages", "offers", "peers", "room", "shares", "transfers"]

Json = dict[str, Any]

MAX_LINE_CHARS: Final = 300  # names, types, errors
MAX_PREVIEW_COLUMNS: Final = 12  # more don't fit on a screen; the count of the others is shown
MAX_PREVIEW_CHARS: Final = 2000
MAX_PREVIEWS_CHARS: Final = 256 * 1024  # in one slice; previews of the oldest items go first
MAX_PARTS: Final = 100
MAX_PATH_CHARS: Final = 4096


def room(source: Room | None, expression: str) -> Json | None:
    """`expression` is what the user has to type to get at the room."""
    if source is None:
        return None
    return {
        "id": _line(source.id),
        "name": _line(source.name),
        "state": source.state,
        "locked": bool(source.locked),
        "hub": _line(_hub(source)),
        "folder": _clip(os.fspath(str(source.folder)), MAX_PATH_CHARS),
        "expression": expression,
    }


def invite(source: Room | None) -> Json | None:
    """The room's secret: it may go to a live front end and nowhere else."""
    if source is None or source.state == "closed":
        return None
    there = source.invite
    return {
        "code": there.code,
        "link": there.link,
        "local_only": bool(there.local_only),
        "qr": ["".join("1" if dark else "0" for dark in row) for row in there.qr_matrix()],
    }


def peers(source: Room | None) -> list[Json]:
    return [] if source is None else [_peer(peer) for peer in list(source.peers.values())]


def messages(source: Room | None) -> list[Json]:
    recent = [] if source is None else list(source.messages)[-protocol.MAX_MESSAGES :]
    return list(_with_keys(_message(message) for message in recent))


def transfers(source: Room | None, retried: Container[str] = ()) -> list[Json]:
    """`retried` are ids of those that were tried again already."""
    recent = [] if source is None else list(source.transfers)[-protocol.MAX_TRANSFERS :]
    return [_transfer(transfer, retried) for transfer in recent]


def offers(source: Room | None) -> list[Json]:
    waiting = [] if source is None else list(source.offers)[: protocol.MAX_OFFERS]
    budget = _PreviewBudget()
    return [_offer(offer, budget) for offer in waiting]


def shares(source: Room | None) -> list[Json]:
    """Own shares first: they are few, and those of others must not push them out."""
    if source is None or source.state == "closed":
        return []
    own_first = sorted(source.shares.items(), key=lambda entry: not entry[1].mine)
    budget = _PreviewBudget()
    return [_share(key, share, budget) for key, share in own_first[: protocol.MAX_SHARES]]


def items(source: Room | None) -> list[Json]:
    recent = [] if source is None else list(source.inbox.all())[-protocol.MAX_ITEMS :]
    budget = _PreviewBudget()
    newest_first = [_item(item, budget) for item in reversed(recent)]
    return list(_with_keys(reversed(newest_first)))


def _hub(source: Room) -> str:
    # A closed room need not have an invite any more.
    try:
        return source.invite.hub
    except P2PError:
        return ""


def _peer(peer: Peer) -> Json:
    rtt = _finite(peer.rtt)
    return {
        "id": peer.id,
        "name": _line(peer.name),
        "kind": peer.kind,
        "state": peer.state,
        "path": peer.path,
        "paths": [_line(path) for path in peer.paths],
        "lanes": {_line(path): int(count) for path, count in peer.lanes.items()},
        "engine": _line(peer.engine),
        # Two digits: a round trip that trembles must not make a message.
        "rtt": None if rtt is None else float(f"{rtt:.2g}"),
        "words": [_line(word) for word in peer.verification],
        "verified": bool(peer.verified),
        "owner": bool(peer.owner),
    }


def _message(message: Message) -> Json:
    return {
        "id": _line(message.id),
        "sender": _line(message.sender),
        "text": _clip(message.text, wire.MAX_CHAT_BYTES),
        "time": _finite(message.time) or 0.0,
        "mine": bool(message.mine),
        "private": bool(message.private),
        "to": [_line(name) for name in message.to],
    }


def _transfer(transfer: Transfer, retried: Container[str]) -> Json:
    parts = list(transfer.per_peer.items())[:MAX_PARTS]
    failed = any(part.state == "failed" for _, part in parts)
    going = transfer.state in ("offered", "moving", "paused")
    return {
        "id": transfer.id,
        "name": _line(transfer.name),
        "kind": transfer.kind,
        "direction": transfer.direction,
        "size_bytes": int(transfer.size_bytes),
        "state": transfer.state,
        "progress": _finite(transfer.progress) or 0.0,
        "rate": _finite(transfer.rate) or 0.0,
        "eta": _finite(transfer.eta),
        "paused_here": any(part.paused_here for _, part in parts),
        "retry": failed
        and not going
        and transfer.direction == "out"
        and transfer.kind != "object"  # of which nothing is kept that could go again
        and transfer.id not in retried,
        "parts": [_part(name, part) for name, part in parts],
        "error": _error(transfer.error),
    }


def _part(name: str, part: TransferPart) -> Json:
    return {
        "name": _line(name),
        "state": part.state,
        "progress": _finite(part.progress) or 0.0,
        "paused_here": bool(part.paused_here),
        "paused_there": bool(part.paused_there),
        "resumed_bytes": int(part.resumed_bytes),
        "error": _error(part.error),
    }


def _offer(offer: Offer, budget: _PreviewBudget) -> Json:
    return {
        "id": offer.id,
        "sender": _line(offer.sender),
        "name": _line(offer.name),
        "kind": offer.kind,
        "type": _line(offer.type),
        "size_bytes": int(offer.size_bytes),
        "count": int(offer.count),
        "preview": budget.take(offer.preview),
    }


def _share(key: str, share: Share, budget: _PreviewBudget) -> Json:
    preview = share.preview
    columns = [_cell(column.name) for column in preview.columns[: wire.MAX_PREVIEW_COLUMNS]]
    return {
        "key": _clip(key, protocol.MAX_KEY_CHARS),
        "name": _line(share.name),
        "owner": _line(share.owner),
        "mine": bool(share.mine),
        "version": int(share.version),
        "newer": bool(share.newer),
        "type": _line(share.type),
        "size_bytes": int(share.size_bytes),
        "time": _finite(share.time) or 0.0,
        "sliceable": bool(share.sliceable),
        "holders": [_line(name) for name in share.holders[:MAX_PARTS]],
        "preview": budget.take(preview),
        "columns": columns if share.sliceable and budget.allows(sum(map(len, columns))) else [],
        "code": _lookup(share.name),
    }


def _lookup(name: str) -> str:
    """Return the Python that finds what is called so in the inbox, to be written behind the room's expression."""
    # A JSON string is a Python literal too: quotes and controls are escaped, other letters stay readable.
    return f".inbox[{json.dumps(_line(name), ensure_ascii=False)}]"


def _item(item: InboxItem, budget: _PreviewBudget) -> Json:
    is_object = item.kind == "object"
    return {
        "name": _line(item.name),
        "sender": _line(item.sender),
        "time": _finite(item.time) or 0.0,
        "size_bytes": int(item.size_bytes),
        "kind": item.kind,
        "type": _line(item.type),
        "preview": budget.take(item.preview),
        "path": "" if is_object else _path(item.value),
        "code": _lookup(item.name),
    }


def _path(value: Any) -> str:
    """Where a received file is; what several files have in common."""
    if isinstance(value, (list, tuple)):
        value = Path(os.path.commonpath([os.fspath(path) for path in value])) if value else ""
    return _clip(str(value), MAX_PATH_CHARS)


class _PreviewBudget:
    """Previews of one slice, until there is no more room for them in one message."""

    def __init__(self) -> None:
        self._left = MAX_PREVIEWS_CHARS

    def take(self, preview: wire.Preview) -> Json:
        columns = preview.columns[:MAX_PREVIEW_COLUMNS]
        shown: Json = {
            "summary": _line(preview.summary),
            "columns": [{"name": _cell(column.name), "type": _cell(column.type)} for column in columns],
            "rows": [
                [_cell(cell) for cell in row[:MAX_PREVIEW_COLUMNS]] for row in preview.rows[: wire.MAX_PREVIEW_ROWS]
            ],
            "text": _clip(preview.text, MAX_PREVIEW_CHARS),
            "more_columns": len(preview.columns) - len(columns),
        }
        cost = len(shown["text"]) + sum(len(cell) for row in shown["rows"] for cell in row)
        if not self.allows(cost):
            return {**shown, "columns": [], "rows": [], "text": "", "more_columns": 0}
        return shown

    def allows(self, cost: int) -> bool:
        """Take so many characters off, if there are as many left."""
        if cost > self._left:
            return False
        self._left -= cost
        return True


def _with_keys(entries: Iterable[Json]) -> Iterator[Json]:
    """Give every entry of a growing list a key that stays the same while the list grows."""
    seen: Counter[str] = Counter()
    for entry in entries:
        # A peer chooses its message ids and may repeat them.
        base = f"{entry['time']} {entry['sender']} {entry.get('id') or entry['name']}"
        seen[base] += 1
        yield {"key": f"{base} {seen[base]}", **entry}


def _error(error: BaseException | None) -> str:
    return "" if error is None else _line(str(error) or type(error).__name__)


def _line(text: str) -> str:
    return _clip(text, MAX_LINE_CHARS)


def _cell(text: str) -> str:
    return _clip(text, wire.MAX_PREVIEW_CELL_CHARS)


def _clip(text: str, limit: int) -> str:
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text.encode("utf-8", "replace").decode()


def _finite(number: float | None) -> float | None:
    return float(number) if number is not None and math.isfinite(number) else None
