"""The peer protocol on one screen: messages between two peers, their layouts and their limits.

Between two peers that know each other's ids from the hub there are three layers:

1. **Relay messages**, the payloads the hub forwards. The first byte says what it is:

       HELLO    [nonce 32][msgpack HelloInfo]         each side, as soon as it knows of the other
       KEYSHARE [id 8][Y 32][msgpack Commitment]      CPace public share and associated data
       CONFIRM  [id 8][tag 32]                        key confirmation; nothing else is sent before it
       REJECT   [id 8][code 1]                        wrong code, locked, version: the handshake ended
       OPEN     [my nonce 16][your nonce 16]          (re)opens the relay path under a standing session
       RECORD   [sealed record]                       the relay path itself

   The id names a handshake: SHA-256("p2pnb/1 handshake" || initiator's nonce || responder's nonce), cut to 8
   bytes. Messages with another id belong to another handshake and are ignored.

2. **Records**, the sealed messages of a path (`records.py`): AES-256-GCM over one frame. On a stream
   transport each record is preceded by its length (4 bytes, big-endian).

3. **Frames**, the plaintext of a record. The first byte is a `FrameType`:

       PROOF    [32 bytes]                            first record each way of every path
       CONTROL  [seq 8][ack 8][msgpack ControlFrame]  numbered per direction from 1, delivered once, in order
       ACK      [ack 8]                               highest number received without a gap
       PING     [token 8]      PONG [token 8]         per path: round trip and liveness
       CHUNK    [transfer 4][offset 8][bytes]         part of a transfer's byte stream; any path, any order
       CLOSE    []                                    this path ends; the session goes on
       DATA     [transfer 4][offset 8]                the next record of this path is the bytes themselves

   DATA does what CHUNK does without mixing a header into the bytes: the receiver can decrypt them straight into
   their place. It is for stream transports, whose records are large.

   Integers are unsigned and big-endian. Control frames are MessagePack arrays ``[tag, field, …]``; a
   receiver ignores tags it does not know (and counts them) and fields beyond those it knows.

A **transfer** is one byte stream of `Offer.size_bytes`: first the *head* (`Offer.head_bytes` of
MessagePack: the files of a folder, or a codec's metadata and buffer lengths), then the content. The
sender may put a small head, or the whole stream, into the offer itself.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Final

import msgspec

__all__ = [
    "Accept",
    "AskHashes",
    "Bye",
    "Cancel",
    "Chat",
    "Column",
    "Complete",
    "ControlFrame",
    "Decline",
    "Finish",
    "FrameType",
    "Got",
    "HandshakeType",
    "Hashes",
    "Lanes",
    "Offer",
    "Pause",
    "Preview",
    "Profile",
    "Pull",
    "PullRefused",
    "RejectCode",
    "RtcAnswer",
    "RtcOffer",
    "ShareBlocks",
    "ShareGone",
    "ShareNews",
    "ShareSources",
    "TcpOffer",
    "Unlock",
    "Want",
    "decode_control",
    "encode_control",
]

PROTOCOL: Final = "p2pnb/1"

# ── limits, each with its reason ────────────────────────────────────────────────────────────────────
MAX_CONTROL_BYTES: Final = 48 * 1024  # fits one WebRTC message (64 KiB) sealed, and never delays chat for long
MAX_CHAT_BYTES: Final = 32 * 1024  # longer text is an object: room.send(text)
MAX_NAME_CHARS: Final = 64  # display names
MAX_ITEM_NAME_CHARS: Final = 255  # names of files and objects, as file systems have it
MAX_INLINE_BYTES: Final = 16 * 1024  # content small enough to ride in its offer
MAX_HEAD_BYTES: Final = 32 * 1024 * 1024  # about 300,000 files in one folder; collected before anything is placed
MAX_PREVIEW_ROWS: Final = 10
MAX_PREVIEW_COLUMNS: Final = 50
MAX_PREVIEW_CELL_CHARS: Final = 80
MAX_SIZE_BYTES: Final = 1 << 50  # a petabyte; keeps every offset far from 2^63
MAX_OPEN_TRANSFERS: Final = 1024  # per direction and session; a flood of offers ends here
MAX_ACK_RANGES: Final = 1024  # in one Got
MAX_GAPS: Final = 4096  # in one transfer's arrived or acknowledged ranges; a window of honest chunks makes some 700
MAX_UNACKED_FRAMES: Final = 4096  # control frames a sender may have under way; the receiver's reorder buffer
MAX_UNACKED_BYTES: Final = 16 * 1024 * 1024
MAX_BEFORE_PROOF_BYTES: Final = 256  # a stranger on a direct port can make us read no more than this
PROOF_TIMEOUT_S: Final = 5.0
HANDSHAKE_TIMEOUT_S: Final = 15.0  # a peer's kernel may hold the GIL for seconds
PING_ACTIVE_S: Final = 3.0  # while frames or chunks are unacknowledged
PING_IDLE_S: Final = 20.0  # keeps NAT bindings (30 s and up) and proxies (60 s) open
PATH_SUSPECT_S: Final = 0.7  # an answer that takes this long, or 4 round trips: send on a second path too
PATH_DOUBT_S: Final = 6.5  # silence while a reply is due: other paths come first (Tailscale's figure)
PATH_DEAD_S: Final = 30.0  # below this a silent kernel may just be computing under the GIL
SESSION_KEEP_S: Final = 30 * 60.0  # a session without any path can resume this long
CHUNK_BYTES_RELAY: Final = 128 * 1024
CHUNK_BYTES_WEBRTC: Final = 48 * 1024  # aiortc rescans a message per fragment; keep messages below 64 KiB
CHUNK_BYTES_TCP: Final = 512 * 1024  # measured: the fastest of 128 KiB to 2 MiB; two of them fit a core's cache
WINDOW_BYTES: Final = 32 * 1024 * 1024  # credit per transfer: 2.5 Gbit/s at 100 ms
MAX_TCP_TARGETS: Final = 16  # addresses a peer may name in one TcpOffer; an honest host has a handful
MAX_LANES: Final = 48  # connections of one transport to one peer: so many of libwebrtc fill 100 Mbit/s at 1 % loss
HASH_BYTES: Final = 16  # SHA-256 cut: a block can't be forged without 2^128 tries
MAX_HASHES: Final = 2048  # in one Hashes: 32 KiB
MAX_SHARES: Final = 1024  # of one peer
WRONG_CODES_PER_MEMBER: Final = 10  # CPace gives one guess per handshake; refilled one per 5 minutes
WRONG_CODE_REFILL_S: Final = 300.0
WRONG_CODES_IN_ALL: Final = 100  # then the room locks for newcomers: 100 guesses of 2^40


class HandshakeType(IntEnum):
    """First byte of a relay message."""

    HELLO = 0x01
    KEYSHARE = 0x02
    CONFIRM = 0x03
    REJECT = 0x04
    OPEN = 0x05
    RECORD = 0x10


class RejectCode(IntEnum):
    """Why a handshake ended."""

    WRONG_CODE = 1
    LOCKED = 2
    VERSION = 3
    MALFORMED = 4


class FrameType(IntEnum):
    """First byte of a frame."""

    PROOF = 0x01
    CONTROL = 0x02
    ACK = 0x03
    PING = 0x04
    PONG = 0x05
    CHUNK = 0x06
    CLOSE = 0x07
    DATA = 0x08


class HelloInfo(msgspec.Struct, frozen=True, array_like=True):
    """What a peer says before any secret is proven; bound into the handshake's channel identifier."""

    protocol: str
    features: list[str] = []


class Commitment(msgspec.Struct, frozen=True, array_like=True):
    """CPace associated data: fixes features and the verification nonce before the other's is seen."""

    features: list[str]
    verification: bytes  # SHA-256("p2pnb/1 verification" || nonce), opened in Profile


# ── control frames ──────────────────────────────────────────────────────────────────────────────────
class Column(msgspec.Struct, frozen=True, array_like=True):
    name: str
    type: str


class Preview(msgspec.Struct, frozen=True, array_like=True):
    """What a receiver sees before it accepts. Every string is text: never rendered, never evaluated."""

    type: str  # e.g. "pandas.DataFrame", "numpy.ndarray", "file", "folder"
    summary: str = ""  # one line: "1,000,000 rows × 8 columns"
    columns: list[Column] = []
    rows: list[list[str]] = []  # first rows, cells already shortened
    text: str = ""  # beginning of a text, repr of a small value, list of a folder's first files


class Profile(msgspec.Struct, frozen=True, array_like=True, tag="profile"):
    """First frame each way: who I am to this peer."""

    name: str
    kind: str  # "kernel", "script" or "browser"
    verification_nonce: bytes  # opens Commitment.verification; 32 bytes
    features: list[str] = []


class Chat(msgspec.Struct, frozen=True, array_like=True, tag="chat"):
    id: str
    text: str
    sent_at: float  # seconds since the epoch, by the sender's clock
    private: bool = False  # said to some, not to the whole room


class Offer(msgspec.Struct, frozen=True, array_like=True, tag="offer"):
    transfer: int  # chosen by the sender, counting up per session
    kind: str  # "object", "file" or "folder"
    name: str
    size_bytes: int  # whole stream: head and content
    head_bytes: int
    preview: Preview
    codec: str = ""  # kind "object": the codec's name
    count: int = 1  # files in a folder
    head: bytes = b""  # the head, if it is small
    content: bytes = b""  # the content, if head and content are small
    answers: int = 0  # the `Pull.request` of the receiver that this offer answers; 0: offered unasked


class Accept(msgspec.Struct, frozen=True, array_like=True, tag="accept"):
    transfer: int
    credit: int  # bytes of the stream the sender may have sent in all
    have: list[tuple[int, int]] = []  # ranges the receiver holds already
    on_request: bool = False  # send nothing but what `Want` names; several peers may serve one receiver so


class Decline(msgspec.Struct, frozen=True, array_like=True, tag="decline"):
    transfer: int
    reason: str = ""


class Got(msgspec.Struct, frozen=True, array_like=True, tag="got"):
    """Newly received ranges [start, end) and the credit so far."""

    transfer: int
    ranges: list[tuple[int, int]]
    credit: int


class Want(msgspec.Struct, frozen=True, array_like=True, tag="want"):
    """Receiver, in a transfer accepted `on_request`: send these ranges [start, end) now."""

    transfer: int
    ranges: list[tuple[int, int]]


class Pause(msgspec.Struct, frozen=True, array_like=True, tag="pause"):
    """Either side: send nothing more of this transfer until the same side says `paused=False`."""

    transfer: int
    by_sender: bool
    paused: bool


class AskHashes(msgspec.Struct, frozen=True, array_like=True, tag="ask-hashes"):
    """Receiver, once: I hold a part of something like this; what are the hashes of these blocks of it?"""

    transfer: int
    block_bytes: int
    blocks: list[tuple[int, int]]  # [first, end) in blocks of the content (after the head)


class Hashes(msgspec.Struct, frozen=True, array_like=True, tag="hashes"):
    """Sender: the hashes asked for, one after the other, HASH_BYTES each; the last block may be short."""

    transfer: int
    block_bytes: int
    digests: bytes


class Finish(msgspec.Struct, frozen=True, array_like=True, tag="finish"):
    """Sender: the source was whole and unchanged to its end; every byte of it was sent."""

    transfer: int


class Complete(msgspec.Struct, frozen=True, array_like=True, tag="complete"):
    """Receiver: everything arrived, was checked and is in its final place."""

    transfer: int


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """Either side: this transfer ends here. `code` is the name of an exception of `p2pnb.errors`."""

    transfer: int
    by_sender: bool
    code: str
    reason: str = ""


class RtcOffer(msgspec.Struct, frozen=True, array_like=True, tag="rtc-offer"):
    attempt: int
    sdp: str


class RtcAnswer(msgspec.Struct, frozen=True, array_like=True, tag="rtc-answer"):
    attempt: int
    sdp: str  # empty: not possible here


class TcpOffer(msgspec.Struct, frozen=True, array_like=True, tag="tcp-offer"):
    """Where I listen for direct connections of this session, and what to say first there."""

    token: bytes  # 16 bytes; the first bytes on a connection to me
    targets: list[tuple[str, int]]  # numeric address and port
    same_host: bytes = b""  # HMAC of what only this machine's network namespace knows; see paths.tcp


class Lanes(msgspec.Struct, frozen=True, array_like=True, tag="lanes"):
    """I send bulk over `transport` and want `count` connections of it in all; you are the one who opens them."""

    transport: str
    count: int


class ShareNews(msgspec.Struct, frozen=True, array_like=True, tag="share"):
    """I publish this, or a newer version of it."""

    share: int  # chosen by the owner, counting up per room and member
    version: int  # counting up per share
    name: str
    size_bytes: int  # whole stream, head and content
    preview: Preview
    codec: str = ""
    shared_at: float = 0.0  # seconds since the epoch, by the owner's clock
    sliceable: bool = False  # columns and rows can be asked for


class ShareGone(msgspec.Struct, frozen=True, array_like=True, tag="share-gone"):
    """I don't publish this any more."""

    share: int


class Pull(msgspec.Struct, frozen=True, array_like=True, tag="pull"):
    """Send me this share: answered by an Offer that names `request`, or by PullRefused."""

    request: int  # chosen by the puller, counting up per session
    owner: bytes  # peer id of the share's owner, who may be a third peer
    share: int
    version: int
    columns: list[str] | None = None  # a slice of a table; None: all
    rows: tuple[int, int] | None = None  # [first, end)
    root: bytes = b""  # towards a holder that isn't the owner: SHA-256 of head and block hashes


class PullRefused(msgspec.Struct, frozen=True, array_like=True, tag="pull-refused"):
    """This share, or this version of it, can't be had from me."""

    request: int
    code: str
    reason: str = ""


class ShareSources(msgspec.Struct, frozen=True, array_like=True, tag="share-sources"):
    """Owner to a puller: these peers have, or are getting, the same version; ask them too."""

    share: int
    version: int
    peers: list[bytes]  # peer ids


class ShareBlocks(msgspec.Struct, frozen=True, array_like=True, tag="share-blocks"):
    """Holder to a puller it serves: of this version I have these ranges of blocks by now."""

    owner: bytes
    share: int
    version: int
    blocks: list[tuple[int, int]]  # [first, end)
    coming: list[tuple[int, int]] = []  # asked of the owner and not here yet; replaces what was said before


class Unlock(msgspec.Struct, frozen=True, array_like=True, tag="unlock"):
    """The owner opens the room for newcomers again after too many wrong codes."""


class Bye(msgspec.Struct, frozen=True, array_like=True, tag="bye"):
    """I leave the room for good."""

    reason: str = ""


ControlFrame = (
    Profile
    | Chat
    | Offer
    | Accept
    | Decline
    | Got
    | Want
    | Pause
    | AskHashes
    | Hashes
    | Finish
    | Complete
    | Cancel
    | RtcOffer
    | RtcAnswer
    | TcpOffer
    | Lanes
    | ShareNews
    | ShareGone
    | Pull
    | PullRefused
    | ShareSources
    | ShareBlocks
    | Unlock
    | Bye
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ControlFrame)
_tag_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_KNOWN_TAGS: Final = frozenset(frame.__struct_config__.tag for frame in ControlFrame.__args__)


def encode_control(frame: ControlFrame) -> bytes:
    """Return the MessagePack form of `frame`; raises ValueError beyond MAX_CONTROL_BYTES."""
    data = _encoder.encode(frame)
    if len(data) > MAX_CONTROL_BYTES:
        raise ValueError(f"control frame of {len(data)} bytes; at most {MAX_CONTROL_BYTES} are allowed")
    return data


def decode_control(data: bytes | memoryview) -> ControlFrame | None:
    """Parse one control frame; None for a tag this version does not know; ValueError for anything malformed."""
    if len(data) > MAX_CONTROL_BYTES:
        raise ValueError(f"control frame of {len(data)} bytes; at most {MAX_CONTROL_BYTES} are allowed")
    try:
        frame: ControlFrame = _decoder.decode(data)
    except RecursionError as error:
        raise ValueError("malformed control frame: nested too deeply") from error
    except msgspec.MsgspecError as error:
        if _has_unknown_tag(data):
            return None
        raise ValueError(f"malformed control frame: {error}") from error
    sent_at = frame.sent_at if isinstance(frame, Chat) else frame.shared_at if isinstance(frame, ShareNews) else 0.0
    if not math.isfinite(sent_at):
        raise ValueError("malformed control frame: a time that is no number")  # JSON towards a panel has no NaN
    return frame


def _has_unknown_tag(data: bytes | memoryview) -> bool:
    try:
        fields = _tag_decoder.decode(data)
        return bool(fields) and msgspec.msgpack.decode(fields[0], type=str) not in _KNOWN_TAGS
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
