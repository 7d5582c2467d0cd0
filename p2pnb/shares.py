"""`Share` and `Shares`: what is published in a room, as a user sees it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from p2pnb.engine.sharing import Shared, Sharing
from p2pnb.errors import PeerGoneError, RoomClosedError, UsageError, WaitTimeoutError
from p2pnb.files.sizes import human_size
from p2pnb.protocol.wire import MAX_ITEM_NAME_CHARS, Preview

if TYPE_CHECKING:
    from p2pnb.engine.pull import Pull
    from p2pnb.engine.thread import Engine
    from p2pnb.transfer import Transfer

__all__ = ["Share", "Shares"]

Rows = slice | tuple[int, int] | int | None


class Share:
    """An object that somebody published. Properties always tell the present state."""

    def __init__(self, shares: Shares, inner: Shared) -> None:
        self._shares = shares
        self._inner = inner

    # ── what it is ──────────────────────────────────────────────────────────────────────────────────
    @property
    def name(self) -> str:
        """What its owner called it; `room.shares` may call it "name (owner)" to tell two apart."""
        return self._inner.name

    @property
    def owner(self) -> str:
        """Name of the peer that published it."""
        return self._inner.owner_name

    @property
    def mine(self) -> bool:
        """True if you published it."""
        return self._inner.link is None

    @property
    def version(self) -> int:
        """Counts from 1; grows whenever its owner shares something new under the same name."""
        return self._inner.version

    @property
    def newer(self) -> bool:
        """True if there is a newer version than the one you fetched last (in whole or in part)."""
        return 0 < self._inner.fetched_version < self._inner.version

    @property
    def type(self) -> str:
        """The owner's word for the type, such as "pandas.DataFrame"."""
        return self._inner.preview.type

    @property
    def preview(self) -> Preview:
        """What the owner says it looks like; plain text."""
        return self._inner.preview

    @property
    def size_bytes(self) -> int:
        """What fetching all of it moves."""
        return self._inner.size_bytes

    @property
    def time(self) -> float:
        """When this version was published, in seconds since the epoch, by the owner's clock."""
        return self._inner.shared_at

    @property
    def sliceable(self) -> bool:
        """True if `fetch` takes `columns` or `rows`."""
        return self._inner.sliceable

    @property
    def gone(self) -> bool:
        """True once its owner took it back or left; it can't be fetched any more."""
        return self._inner.gone

    @property
    def holders(self) -> tuple[str, ...]:
        """Names of those known to hold all of the newest version: the owner, and who fetched it from there."""
        return self._shares._holders(self._inner)

    # ── what to do with it ──────────────────────────────────────────────────────────────────────────
    def fetch(self, columns: Iterable[str] | None = None, rows: Rows = None, timeout: float | None = None) -> Any:
        """Fetch it and return its value; with `columns` or `rows` only that part of a table or array.

        rows     a slice or pair [first, end), or a number: the first so many
        timeout  in seconds: WaitTimeoutError after it, and the fetch is given up

        Each call fetches anew and returns a value of its own; of your own share it returns the object itself (or a
        view of the part). Everybody who fetches the same at once, or holds it already, serves the others. Raises
        UsageError for a part that doesn't exist, PeerGoneError if the owner left, TransferError if it was taken
        back, CodecError if it can't be rebuilt here.
        """
        part = _columns(columns), _rows(rows)
        if self._shares._engine.is_current:
            raise UsageError("fetch() waits, and callbacks of p2pnb may not wait. Use share.pull() or await afetch().")
        if self.mine:
            return self._own_part(*part)
        pull, future = self._start(part, inbox=False)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError as error:
            if future.done():
                raise  # what the fetch itself raised
            raise self._late(timeout) from error
        finally:
            self._give_up(pull, future)

    async def afetch(
        self, columns: Iterable[str] | None = None, rows: Rows = None, timeout: float | None = None
    ) -> Any:
        """Like `fetch`, to be awaited; cancelling it gives the fetch up."""
        part = _columns(columns), _rows(rows)
        if self.mine:
            return self._own_part(*part)
        pull, future = self._start(part, inbox=False)
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            if future.done() and not future.cancelled():
                raise
            raise self._late(timeout) from error
        finally:
            self._give_up(pull, future)

    def pull(self, columns: Iterable[str] | None = None, rows: Rows = None) -> Transfer:
        """Start fetching it, or a part, and return the Transfer at once; the value comes into `room.inbox`."""
        part = _columns(columns), _rows(rows)
        if self.mine:
            raise UsageError(f"{self.name!r} is your own share: share.fetch() returns it.")
        pull, _ = self._start(part, inbox=True)
        return self._shares._transfer_of(pull)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────
    def _start(
        self, part: tuple[list[str] | None, tuple[int, int] | None], *, inbox: bool
    ) -> tuple[Pull, concurrent.futures.Future[Any]]:
        columns, rows = part
        if self.gone:
            raise PeerGoneError(f"{self.name!r} is not shared any more: {self.owner} took it back or left.")
        if (columns is not None or rows is not None) and not self.sliceable:
            raise UsageError(f"{self.name!r} is a {self.type or 'value'}: it has no columns or rows, fetch all of it.")
        sharing = self._shares._sharing()
        pull = sharing.pull(self._inner, columns, rows, inbox=inbox)
        future = pull.take_value()
        self._shares._engine.post(sharing.start, pull)
        return pull, future

    def _give_up(self, pull: Pull, future: concurrent.futures.Future[Any]) -> None:
        if not future.done() or future.cancelled():
            self._shares._engine.post(pull.cancel)

    def _late(self, timeout: float | None) -> WaitTimeoutError:
        return WaitTimeoutError(
            f"{self.name!r} was not fetched within {timeout} s and was given up. Allow more time, or use share.pull() "
            "and go on with other things."
        )

    def _own_part(self, columns: list[str] | None, rows: tuple[int, int] | None) -> Any:
        value = self._inner.value
        if self.gone:
            raise PeerGoneError(f"{self.name!r} is not shared any more.")
        if columns is None and rows is None:
            return value
        from p2pnb.objects.slices import slice_value

        return slice_value(value, columns, rows)

    def __repr__(self) -> str:
        whose = "yours" if self.mine else f"from {self.owner}"
        state = ", gone" if self.gone else ", newer than what you fetched" if self.newer else ""
        return (
            f"<Share {self.name!r} {whose}: {self.type}, {human_size(self.size_bytes)}, version {self.version}{state}>"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        lines = [repr(self)]
        if self.preview.summary:
            lines.append(self.preview.summary)
        lines += [f"  {column.name}: {column.type}" for column in self.preview.columns]
        return {"text/plain": "\n".join(lines)}


class Shares(Mapping[str, Share]):
    """What is published in the room now, by name.

    Of two that are called "prices", the one seen first is "prices" and the other "prices (Ben)"; your own always
    has the plain name. A share keeps its name here as long as it is published.
    """

    def __init__(self, engine: Engine, sharing: Callable[[], Sharing], transfer_of: Callable[[Pull], Transfer]) -> None:
        self._engine = engine
        self._sharing = sharing
        self._transfer_of = transfer_of
        self._shares: dict[str, Share] = {}  # replaced, never changed: it is read from any thread

    def __getitem__(self, name: str) -> Share:
        try:
            return self._shares[name]
        except KeyError:
            here = ", ".join(map(repr, self._shares)) or "nothing yet"
            close = difflib.get_close_matches(str(name), self._shares, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise KeyError(f"no {name!r} is shared; there is {here}{hint}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._shares)

    def __len__(self) -> int:
        return len(self._shares)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __repr__(self) -> str:
        return "\n".join(f"{key!r}: {share!r}" for key, share in self._shares.items()) or "<nothing is shared>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self)}

    # ── for the room ────────────────────────────────────────────────────────────────────────────────
    def _publish(self, name: str, value: Any) -> Share:
        """Share a value under a name; from any thread."""
        from p2pnb.objects import encode
        from p2pnb.objects.slices import sliceable

        name = str(name)
        if not name.strip() or len(name) > MAX_ITEM_NAME_CHARS or not name.isprintable():
            raise UsageError(f"A share's name is a text of 1 to {MAX_ITEM_NAME_CHARS} printable characters.")
        sharing = self._sharing()
        encoded = encode(value)
        shared = self._on_engine(lambda: sharing.share(name, value, encoded, sliceable=sliceable(value)))
        return self._changed(shared)

    def _unpublish(self, name: str) -> None:
        """Take an own share back; from any thread."""
        sharing = self._sharing()
        found = next((share for share in self._shares.values() if share.mine and share.name == name), None)
        if found is None:
            mine = ", ".join(repr(share.name) for share in self._shares.values() if share.mine) or "nothing"
            raise UsageError(f"You don't share {name!r}; you share {mine}.")
        self._on_engine(lambda: sharing.unshare(found._inner))

    def _changed(self, shared: Shared) -> Share:
        """A share came, changed or went: note it, and return it as the user sees it."""
        share = next((known for known in self._shares.values() if known._inner is shared), None)
        if shared.gone:
            if share is not None:
                self._shares = {key: known for key, known in self._shares.items() if known is not share}
        elif share is None:
            share = Share(self, shared)
            self._shares = self._with(share)
        return share if share is not None else Share(self, shared)

    def _with(self, share: Share) -> dict[str, Share]:
        shares = dict(self._shares)
        if share.mine and share.name in shares:
            return {
                (self._free(shares, known) if key == share.name else key): known for key, known in shares.items()
            } | {share.name: share}
        shares[share.name if share.name not in shares else self._free(shares, share)] = share
        return shares

    @staticmethod
    def _free(shares: dict[str, Share], share: Share) -> str:
        """Return a name with the owner's that is not taken."""
        wanted = key = f"{share.name} ({share.owner})"
        count = 1
        while key in shares:
            count += 1
            key = f"{wanted} ({count})"
        return key

    def _holders(self, shared: Shared) -> tuple[str, ...]:
        try:
            sharing = self._sharing()
        except RoomClosedError:
            return ()
        return tuple(self._on_engine(lambda: sharing.holders(shared)))

    def _on_engine(self, function: Callable[[], Any]) -> Any:
        """Call a function on the engine's thread."""
        if self._engine.is_current:
            return function()

        async def call() -> Any:
            return function()

        return self._engine.call(call())


def _columns(columns: Iterable[str] | None) -> list[str] | None:
    if columns is None:
        return None
    if isinstance(columns, str):
        return [columns]
    names = list(columns)
    if not names or not all(isinstance(name, str) for name in names):
        raise UsageError('columns are names, such as ["open", "close"].')
    return names


def _rows(rows: Rows) -> tuple[int, int] | None:
    if rows is None:
        return None
    if isinstance(rows, slice):
        if rows.step not in (None, 1):
            raise UsageError("rows are fetched one after the other: a slice with a step can't be. Take it afterwards.")
        first, end = rows.start or 0, (1 << 62) if rows.stop is None else rows.stop
    elif isinstance(rows, tuple) and len(rows) == 2:
        first, end = rows
    else:
        first, end = 0, rows
    if type(first) is not int or type(end) is not int:
        raise UsageError("rows are a slice, a pair (first, end) of whole numbers, or how many from the start.")
    if not 0 <= first <= end:
        raise UsageError(f"Rows {first} to {end} can't be had: count from 0, and end after the first.")
    return first, end
