"""Write the byte vectors of the peer protocol: `python tests/vectors/generate.py` from the repository's root.

Everything is derived from fixed bytes, so the files change only when the protocol does. `README.md` beside
this file says what is in them; `tests/unit/protocol/test_vectors.py` holds the code and the files together.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from p2pnb.protocol.handshake import Established, Handshake, HandshakeRandom
from p2pnb.protocol.keys import RootKeys, SessionSecret, next_key, verification_commitment
from p2pnb.protocol.records import PathCipher
from p2pnb.protocol.session import chunk_header
from p2pnb.protocol.wire import (
    Accept,
    AskHashes,
    Bye,
    Cancel,
    Chat,
    Column,
    Complete,
    ControlFrame,
    Decline,
    Finish,
    FrameType,
    Got,
    Hashes,
    Lanes,
    Offer,
    Pause,
    Preview,
    Profile,
    Pull,
    PullRefused,
    RtcAnswer,
    RtcOffer,
    ShareBlocks,
    ShareGone,
    ShareNews,
    ShareSources,
    TcpOffer,
    Unlock,
    Want,
    encode_control,
)
from p2pnb.words import verification_words

__all__ = ["FRAMES", "all_vectors"]

HERE = Path(__file__).parent
ADA, BEN = bytes(range(16)), bytes(range(16, 32))
ROOM, WORDS = "k3m9-testroom", "amber boat cedar dune"
REKEY_RECORDS = 4

FRAMES: list[ControlFrame] = [
    Profile("Ada", "kernel", bytes(range(32)), ["webrtc"]),
    Profile("Zoë 🌍", "browser", bytes(32)),
    Chat("00ff", "hello, Ben", 1_700_000_000.25),
    Chat("0100", "for you alone", 1_700_000_001.0, True),
    Offer(
        transfer=1,
        kind="object",
        name="table",
        size_bytes=1_000_400,
        head_bytes=400,
        preview=Preview(
            "pandas.DataFrame", "1,000 rows × 2 columns", [Column("x", "int64"), Column("y", "string")], [["1", "a"]]
        ),
        codec="arrow",
    ),
    Offer(2, "file", "notes.txt", 5, 3, Preview("file", text="hi"), head=b"abc", content=b"hi"),
    Offer(4_294_967_295, "folder", "data", 1 << 50, 32 * 1024 * 1024, Preview("folder"), count=300_000),
    Accept(1, 400),
    Accept(1, 1_000_400, [(0, 400), (65_536, 131_072)]),
    Decline(1),
    Decline(2, "not now"),
    Got(1, [], 33_554_432),
    Got(1, [(0, 400), (400, 131_472)], 1 << 50),
    Finish(1),
    Complete(1),
    Cancel(1, True, "SourceChangedError", "notes.txt changed"),
    Cancel(2, False, "DiskFullError"),
    RtcOffer(1, "v=0\r\n"),
    RtcAnswer(1, ""),
    TcpOffer(bytes(range(16)), [("192.0.2.7", 40123), ("2001:db8::7", 40123)], bytes(32)),
    Lanes("webrtc", 8),
    Want(7, [(0, 1024)]),
    Pause(7, True, True),
    AskHashes(7, 1 << 20, [(0, 3), (9, 10)]),
    Hashes(7, 1 << 20, bytes(64)),
    ShareNews(1, 2, "prices", 1000, Preview("pandas.DataFrame"), "arrow", 1.7e9, True),
    ShareGone(1),
    Pull(1, bytes(range(16)), 1, 2, ["a", "b"], (0, 100)),
    Pull(2, bytes(range(16)), 1, 2, root=bytes(32)),
    PullRefused(1, "UsageError", "there is no column 'c'"),
    ShareSources(1, 2, [bytes(range(16))]),
    ShareBlocks(bytes(range(16)), 1, 2, [(0, 4)]),
    Unlock(),
    Bye(),
    Bye("kernel restarted"),
]


def fixed(label: str, length: int = 32) -> bytes:
    """Bytes that their label names."""
    return hashlib.shake_256(f"p2pnb vector {label}".encode()).digest(length)


def key_schedule() -> dict[str, Any]:
    isk = fixed("isk", 64)
    keys = RootKeys.from_isk(isk)
    share, data = fixed("share"), fixed("data", 60)
    initiator, responder = fixed("initiator verification nonce"), fixed("responder verification nonce")
    verification = keys.verification(initiator, responder)
    paths = []
    for transport, nonce_bytes in (("relay", 32), ("relay", 16), ("webrtc", 16), ("tcp", 16)):
        nonces = fixed(f"{transport} initiator", nonce_bytes), fixed(f"{transport} responder", nonce_bytes)
        path = keys.session(initiator=True).path(transport, *nonces)
        paths.append(
            {
                "transport": transport,
                "initiator_nonce": nonces[0],
                "responder_nonce": nonces[1],
                "initiator_to_responder": path.send,
                "responder_to_initiator": path.receive,
                "initiator_proof": path.send_proof,
                "responder_proof": path.receive_proof,
                "initiator_to_responder_next": next_key(path.send),
            }
        )
    return {
        "isk": isk,
        "root": keys.root,
        "confirm": {
            "share": share,
            "data": data,
            "initiator_tag": keys.confirmation_tag(initiator=True, share=share, data=data),
            "responder_tag": keys.confirmation_tag(initiator=False, share=share, data=data),
        },
        "session": keys.session(initiator=True).secret,
        "verification": {
            "initiator_nonce": initiator,
            "responder_nonce": responder,
            "initiator_commitment": verification_commitment(initiator),
            "responder_commitment": verification_commitment(responder),
            "bytes": verification,
            "bits": [int.from_bytes(verification, "big") >> (256 - 11 * (i + 1)) & 0x7FF for i in range(4)],
            "words": list(verification_words(verification)),
        },
        "paths": paths,
    }


def records() -> dict[str, Any]:
    session, nonces = fixed("session"), (fixed("initiator", 16), fixed("responder", 16))
    ends = [
        PathCipher(SessionSecret(session, i).path("relay", *nonces), rekey_records=REKEY_RECORDS) for i in (True, False)
    ]
    directions = {}
    for name, cipher, received in (
        ("initiator_to_responder", ends[0], 7),
        ("responder_to_initiator", ends[1], 2**40),
    ):
        sealed = [{"proof_of_received": received, "record": cipher.proof_record(received)}]
        for number in range(2 * REKEY_RECORDS + 1):
            frame = bytes([FrameType.PING]) + number.to_bytes(8, "big")
            sealed.append({"frame": frame, "record": cipher.seal(frame)})
        directions[name] = sealed
    return {
        "session": session,
        "transport": "relay",
        "initiator_nonce": nonces[0],
        "responder_nonce": nonces[1],
        "rekey_records": REKEY_RECORDS,
        **directions,
    }


def handshake() -> dict[str, Any]:
    sides: dict[str, dict[str, Any]] = {}
    for name, my_id, peer_id in (("initiator", ADA, BEN), ("responder", BEN, ADA)):
        random = HandshakeRandom(*(fixed(f"{name} {part}") for part in ("nonce", "scalar", "verification")))
        machine = Handshake(room=ROOM, words=WORDS, my_id=my_id, peer_id=peer_id, random=random, features=("webrtc",))
        machine.start()
        sides[name] = {"id": my_id, "random": random, "machine": machine, "sent": machine.messages_to_send()}
    one, other = sides["initiator"], sides["responder"]
    for step in range(3):  # HELLO, KEYSHARE, CONFIRM: both speak, then both hear
        for side, peer in ((one, other), (other, one)):
            side["event"] = side["machine"].receive_message(peer["sent"][step])
            if step == 0:
                side["machine"].share()
        for side in (one, other):
            side["sent"] += side["machine"].messages_to_send()
    out: dict[str, Any] = {"room": ROOM, "words": WORDS, "features": ["webrtc"]}
    for name, side in sides.items():
        established = side["event"]
        assert isinstance(established, Established)
        out[name] = {
            "id": side["id"],
            "nonce": side["random"].nonce,
            "scalar": side["random"].scalar,
            "verification_nonce": side["random"].verification_nonce,
            "hello": side["sent"][0],
            "keyshare": side["sent"][1],
            "confirm": side["sent"][2],
        }
        out |= {
            "generator": side["machine"]._base,
            "session_id": side["machine"]._session_id,
            "handshake_id": side["machine"]._id,
            "root": established.root.root,
            "session": established.session.secret,
        }
    return out


def frames() -> dict[str, Any]:
    control = [
        {
            "type": type(frame).__name__,
            "fields": {name: getattr(frame, name) for name in frame.__struct_fields__},
            "msgpack": encode_control(frame),
        }
        for frame in FRAMES
    ]
    return {
        "control": control,
        "unknown_tag": msgspec.msgpack.encode(["from-the-future", 1]),
        "more_fields_than_known": {
            "msgpack": msgspec.msgpack.encode(["finish", 1, "later"]),
            "same_as": {"transfer": 1},
        },
        "malformed": [b"", b"\x90", b"\xc1", b"\x91\xa6finish", b"\x92\xa6finish\xa11", b"\x92\xa3bye\xa2\xff\xfe"],
        "numbered": {
            "number": 258,
            "acknowledged": 2**32,
            "frame": bytes([FrameType.CONTROL])
            + (258).to_bytes(8, "big")
            + (2**32).to_bytes(8, "big")
            + encode_control(Bye()),
        },
        "acknowledgement": {"acknowledged": 2**40, "frame": bytes([FrameType.ACK]) + (2**40).to_bytes(8, "big")},
        "chunks": [
            {"transfer": transfer, "offset": offset, "header": chunk_header(transfer, offset)}
            for transfer, offset in ((1, 0), (2, 131_072), (4_294_967_295, 1 << 50))
        ],
    }


def all_vectors() -> dict[str, str]:
    """The text of every file by its name."""
    parts = {"key-schedule": key_schedule(), "records": records(), "handshake": handshake(), "frames": frames()}
    return {
        f"{name}.json": json.dumps(_plain(part), indent=1, ensure_ascii=False) + "\n" for name, part in parts.items()
    }


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex()
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case msgspec.Struct():
            return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
        case _:
            return value


if __name__ == "__main__":
    for name, text in all_vectors().items():
        (HERE / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{name}: {len(text)} characters\n")
