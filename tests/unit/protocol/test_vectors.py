"""The published vectors are what the code does, and what the code does is in the vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from p2pnb.protocol import wire
from p2pnb.protocol.handshake import Established, Handshake, HandshakeRandom
from p2pnb.protocol.keys import SessionSecret
from p2pnb.protocol.records import PathCipher
from p2pnb.protocol.wire import ControlFrame, decode_control
from tests.vectors import generate

FOLDER = Path(generate.__file__).parent


def load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["key-schedule.json", "records.json", "handshake.json", "frames.json"])
def test_the_files_are_what_the_generator_writes(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == generate.all_vectors()[name]


def test_every_file_is_described() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(path.name in readme for path in FOLDER.glob("*.json"))


@pytest.mark.parametrize("role", ["initiator", "responder"])
def test_each_side_of_the_recorded_handshake_can_be_played_alone(role: str) -> None:
    vector = load("handshake.json")
    me, peer = vector[role], vector["responder" if role == "initiator" else "initiator"]
    machine = Handshake(
        room=vector["room"],
        words=vector["words"],
        my_id=bytes.fromhex(me["id"]),
        peer_id=bytes.fromhex(peer["id"]),
        random=HandshakeRandom(*(bytes.fromhex(me[part]) for part in ("nonce", "scalar", "verification_nonce"))),
        features=tuple(vector["features"]),
    )
    machine.start()
    machine.receive_message(bytes.fromhex(peer["hello"]))
    machine.share()
    machine.receive_message(bytes.fromhex(peer["keyshare"]))
    event = machine.receive_message(bytes.fromhex(peer["confirm"]))
    assert [message.hex() for message in machine.messages_to_send()] == [me["hello"], me["keyshare"], me["confirm"]]
    assert isinstance(event, Established) and event.session.secret.hex() == vector["session"]


@pytest.mark.parametrize("initiator", [True, False])
def test_each_side_opens_the_recorded_records(initiator: bool) -> None:
    vector = load("records.json")
    nonces = (bytes.fromhex(vector[f"{role}_nonce"]) for role in ("initiator", "responder"))
    path = SessionSecret(bytes.fromhex(vector["session"]), initiator).path(vector["transport"], *nonces)
    cipher = PathCipher(path, rekey_records=vector["rekey_records"])
    proof, *records = vector["responder_to_initiator" if initiator else "initiator_to_responder"]
    assert cipher.open_proof(bytes.fromhex(proof["record"])) == proof["proof_of_received"]
    assert len(records) > 2 * vector["rekey_records"]
    for record in records:
        assert cipher.open(bytes.fromhex(record["record"])).hex() == record["frame"]


def test_every_control_frame_is_there_and_reads_back() -> None:
    vector = load("frames.json")
    assert {frame["type"] for frame in vector["control"]} == {frame.__name__ for frame in get_args(ControlFrame)}
    for frame, entry in zip(generate.FRAMES, vector["control"], strict=True):
        assert decode_control(bytes.fromhex(entry["msgpack"])) == frame
    assert decode_control(bytes.fromhex(vector["unknown_tag"])) is None
    longer = vector["more_fields_than_known"]
    assert decode_control(bytes.fromhex(longer["msgpack"])) == wire.Finish(**longer["same_as"])
    for data in vector["malformed"]:
        with pytest.raises(ValueError):  # noqa: PT011 - any of them will do
            decode_control(bytes.fromhex(data))


def test_the_encoding_is_the_shortest_that_msgpack_has() -> None:
    """So that two implementations write the same bytes: compare with a plain list of the same values."""
    for frame in generate.FRAMES:
        values = [getattr(frame, name) for name in frame.__struct_fields__]
        tag = frame.__struct_config__.tag
        assert wire.encode_control(frame) == msgspec.msgpack.encode([tag, *values])
