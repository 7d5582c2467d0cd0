"""The router alone: a scripted clock, counted ids, no sockets."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from p2pnb.protocol.hub import (
    JOIN_TIMEOUT_S,
    MAX_PAYLOAD_BYTES,
    MAX_TEXT_BYTES,
    PEER_GRACE_S,
    ROOM_GRACE_S,
    CloseCode,
    Error,
    ErrorCode,
    HubMessage,
    IceServer,
    Join,
    Joined,
    Leave,
    Left,
    PeerEntry,
    Restarting,
    Resume,
    Welcome,
    decode_hub_message,
    encode_message,
    valid_room_id,
)
from p2pnb_server.ice import ICE_TEXT_BYTES_MAX, IceGrant
from p2pnb_server.limits import PEERS_PER_ROOM_MAX, Bucket, Rate, RouterLimits
from p2pnb_server.router import Close, RefusedError, Router, Send
from p2pnb_server.seals import TICKET_LIFETIME_S, Seals

KEY = bytes(range(32))
WALL = 1_800_000_000.0


def counted_bytes():
    """Distinct bytes, the same ones in every run."""
    counter = itertools.count()
    return lambda count: hashlib.shake_128(str(next(counter)).encode()).digest(count)


class Net:
    """A router with clients: what it sends lands in `inbox`, what it closes in `closed`."""

    def __init__(self, limits: RouterLimits | None = None, key: bytes = KEY, **options) -> None:
        self.router = Router(key, counted_bytes(), limits=limits, **options)
        self.now, self.wall = 1000.0, WALL
        self.inbox: dict[int, list[HubMessage]] = defaultdict(list)
        self.closed: dict[int, int] = {}

    def pump(self) -> None:
        for effect in self.router.take_effects():
            match effect:
                case Send(connections, text):
                    for connection in connections:
                        assert connection not in self.closed, "nothing is sent after a close"
                        self.inbox[connection].append(decode_hub_message(text))
                case Close(connection, code, reason):
                    assert len(reason.encode()) <= 123
                    self.closed[connection] = code

    def room(self):
        return self.router.create_room(self.now, self.wall)

    def connect(self, address: str = "192.0.2.1") -> int:
        connection = self.router.connect(address, self.now)
        self.pump()
        return connection

    def say(self, connection: int, text: str) -> HubMessage | None:
        before = len(self.inbox[connection])
        self.router.receive_text(connection, text, self.now, self.wall)
        self.pump()
        new = self.inbox[connection][before:]
        return new[0] if new else None

    def join(self, room: str, address: str = "192.0.2.1", **fields) -> tuple[int, HubMessage | None]:
        connection = self.connect(address)
        return connection, self.say(connection, encode_message(Join(room, **fields)))

    def admitted(self, room: str, **fields) -> tuple[int, Welcome]:
        connection, answer = self.join(room, **fields)
        assert isinstance(answer, Welcome), answer
        return connection, answer

    def lose(self, connection: int) -> None:
        self.router.disconnect(connection, self.now)
        self.pump()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds
        self.router.handle_timer(self.now)
        self.pump()

    def forward(self, connection: int, to: str, payload: bytes = b"x" * 100):
        found = self.router.forward(connection, bytes.fromhex(to) + payload, self.now)
        self.pump()
        return found

    def drain(self, connection: int) -> list[HubMessage]:
        return [self.inbox[connection].pop(0) for _ in range(len(self.inbox[connection]))]


@pytest.fixture
def net() -> Net:
    return Net()


def error_of(answer: HubMessage | None) -> str:
    assert isinstance(answer, Error), answer
    return answer.code


def kept(router: Router) -> int:
    """Count everything the router's tables hold."""
    return sum(len(value) for value in vars(router).values() if isinstance(value, dict | list))


# ── rooms ───────────────────────────────────────────────────────────────────────────────────────────
def test_a_room_exists_only_once_it_was_created(net):
    connection, answer = net.join("7kq2mabc")
    assert error_of(answer) == ErrorCode.ROOM_NOT_FOUND
    assert net.closed[connection] == CloseCode.ROOM_NOT_FOUND
    room = net.room()
    assert valid_room_id(room.room)
    net.admitted(room.room)


def test_peers_of_a_room_hear_of_each_other(net):
    room = net.room().room
    ada, to_ada = net.admitted(room)
    ben, to_ben = net.admitted(room)
    assert to_ada.peers == []
    assert to_ben.peers == [PeerEntry(to_ada.id)]
    assert net.drain(ada)[1:] == [Joined(to_ben.id)]
    net.say(ben, encode_message(Leave()))
    assert net.drain(ada) == [Left(to_ben.id)]
    assert net.closed[ben] == 1000


def test_an_empty_room_is_kept_for_the_grace_period_and_no_longer(net):
    room = net.room().room
    connection, _ = net.admitted(room)
    net.say(connection, encode_message(Leave()))
    net.pass_time(ROOM_GRACE_S - 1)
    connection, _ = net.admitted(room)
    net.say(connection, encode_message(Leave()))
    net.pass_time(ROOM_GRACE_S)
    _, answer = net.join(room)
    assert error_of(answer) == ErrorCode.ROOM_NOT_FOUND


def test_a_room_nobody_ever_joined_goes_too(net):
    net.room()
    net.pass_time(ROOM_GRACE_S)
    assert net.router.stats().rooms == 0


def test_the_number_of_rooms_is_bounded(net):
    net = Net(RouterLimits(rooms=2))
    net.room()
    ticket_room = net.room()
    with pytest.raises(RefusedError, match="limit"):
        net.room()
    assert net.router.close_room(ticket_room.room)
    net.room()


def test_rooms_are_not_created_faster_than_allowed():
    net = Net(RouterLimits(rooms_created=Rate(2, 0.5)))
    net.room(), net.room()
    with pytest.raises(RefusedError) as refused:
        net.room()
    assert 0 < refused.value.error.retry_after <= 2
    net.pass_time(2)
    net.room()


def test_a_closed_room_sends_everybody_out_and_no_ticket_brings_it_back(net):
    room = net.room()
    connection, welcome = net.admitted(room.room)
    assert net.router.close_room(room.room)
    net.pump()
    assert net.closed[connection] == CloseCode.ROOM_NOT_FOUND
    _, answer = net.join(room.room, ticket=welcome.ticket, resume=Resume(welcome.id, welcome.secret))
    assert error_of(answer) == ErrorCode.ROOM_NOT_FOUND
    assert not net.router.close_room(room.room)


def test_a_closed_room_leaves_nothing_to_do_for_its_peers_that_were_away(net):
    room = net.room()
    connection, _ = net.admitted(room.room)
    net.lose(connection)
    net.router.close_room(room.room)
    net.pass_time(PEER_GRACE_S)
    assert net.router.stats().peers_away == 0


# ── forwarding ──────────────────────────────────────────────────────────────────────────────────────
def test_a_message_goes_to_its_destination_and_names_its_source(net):
    room = net.room().room
    ada, to_ada = net.admitted(room)
    ben, to_ben = net.admitted(room)
    found = net.forward(ada, to_ben.id)
    assert (found.connection, found.source, found.delay) == (ben, bytes.fromhex(to_ada.id), 0.0)


def test_rooms_are_isolated(net):
    ada, _ = net.admitted(net.room().room)
    _, to_ben = net.admitted(net.room().room)
    net.drain(ada)
    assert net.forward(ada, to_ben.id) is None
    assert net.drain(ada) == [Error("no-peer", "This peer is not connected.", fatal=False, peer=to_ben.id)]


def test_nobody_sends_to_himself(net):
    ada, to_ada = net.admitted(net.room().room)
    assert net.forward(ada, to_ada.id) is None


def test_frames_for_nobody_are_answered_within_bounds(net):
    net = Net(RouterLimits(no_peer_errors=Rate(5, 1)))
    ada, _ = net.admitted(net.room().room)
    net.drain(ada)
    for _ in range(1000):
        net.forward(ada, "0" * 32)
    assert len(net.drain(ada)) == 5


@pytest.mark.parametrize("size", [0, 15, 16 + MAX_PAYLOAD_BYTES + 1])
def test_a_message_of_an_impossible_size_ends_the_connection(net, size):
    ada, _ = net.admitted(net.room().room)
    assert net.router.forward(ada, bytes(size), net.now) is None
    net.pump()
    assert net.closed[ada] == CloseCode.BAD_MESSAGE


def test_a_rate_slows_the_sender_down_by_what_it_is_over():
    net = Net(RouterLimits(bytes_per_second=100_000, bytes_burst=100_000))
    room = net.room().room
    ada, _ = net.admitted(room)
    _, to_ben = net.admitted(room)
    delays = [net.forward(ada, to_ben.id, bytes(50_000 - 16)).delay for _ in range(4)]
    assert delays == pytest.approx([0, 0, 0.5, 1.0])
    net.pass_time(10)
    assert net.forward(ada, to_ben.id, bytes(50_000 - 16)).delay == 0


def test_pings_of_peers_are_no_use_of_a_room_and_messages_are(net):
    room = net.room().room
    ada, _ = net.admitted(room)
    _, to_ben = net.admitted(room)
    joined_at = net.router.last_used
    net.pass_time(5)
    net.forward(ada, to_ben.id, bytes(40))
    assert net.router.last_used == joined_at
    net.forward(ada, to_ben.id, bytes(100))
    assert net.router.last_used == net.now


# ── coming back ─────────────────────────────────────────────────────────────────────────────────────
def test_a_lost_peer_that_returns_within_its_grace_is_not_reported_as_left(net):
    room = net.room().room
    ada, _ = net.admitted(room)
    ben, to_ben = net.admitted(room)
    net.drain(ada)
    net.lose(ben)
    net.pass_time(PEER_GRACE_S - 1)
    assert net.drain(ada) == []
    _, again = net.admitted(room, resume=Resume(to_ben.id, to_ben.secret))
    assert again.id == to_ben.id
    net.pass_time(PEER_GRACE_S)
    assert net.drain(ada) == [Joined(to_ben.id)]


def test_a_lost_peer_is_reported_as_left_after_its_grace_and_may_still_resume(net):
    room = net.room().room
    ada, _ = net.admitted(room)
    ben, to_ben = net.admitted(room)
    net.drain(ada)
    net.lose(ben)
    assert net.forward(ada, to_ben.id) is None
    assert error_of(net.drain(ada)[0]) == ErrorCode.NO_PEER
    net.pass_time(PEER_GRACE_S)
    assert net.drain(ada) == [Left(to_ben.id)]
    _, again = net.admitted(room, resume=Resume(to_ben.id, to_ben.secret))
    assert again.id == to_ben.id


def test_a_newcomer_is_not_told_of_peers_that_are_away(net):
    room = net.room().room
    ada, _ = net.admitted(room)
    net.lose(ada)
    assert net.admitted(room)[1].peers == []


def test_the_same_peer_on_a_new_socket_replaces_the_old_one(net):
    room = net.room().room
    ada, to_ada = net.admitted(room)
    old, to_ben = net.admitted(room)
    new, _ = net.admitted(room, resume=Resume(to_ben.id, to_ben.secret))
    assert error_of(net.drain(old)[-1]) == ErrorCode.REPLACED
    assert net.closed[old] == CloseCode.REPLACED
    assert net.forward(old, to_ada.id) is None, "the old socket speaks for nobody"
    assert net.forward(ada, to_ben.id).connection == new
    net.lose(old)  # its end is no news
    net.pass_time(PEER_GRACE_S)
    assert net.forward(ada, to_ben.id).connection == new
    assert Left(to_ben.id) not in net.drain(ada)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: Resume(r.id, "0" * 64),
        lambda r: Resume(r.id, ""),
        lambda r: Resume(r.id, "ä\U0001f600"),
        lambda r: Resume("0" * 32, r.secret),
        lambda r: Resume("zz", r.secret),
        lambda r: Resume(" ".join(r.id[i : i + 2] for i in range(0, 32, 2)) + "00", r.secret),
    ],
)
def test_a_place_is_taken_only_with_its_secret(net, change):
    room = net.room().room
    ada, to_ada = net.admitted(room)
    stranger, answer = net.join(room, resume=change(Resume(to_ada.id, to_ada.secret)))
    assert error_of(answer) == ErrorCode.BAD_SECRET
    assert net.closed[stranger] == CloseCode.REFUSED
    assert ada not in net.closed


def test_a_secret_of_one_room_opens_no_place_in_another(net):
    _, to_ada = net.admitted(net.room().room)
    _, answer = net.join(net.room().room, resume=Resume(to_ada.id, to_ada.secret))
    assert error_of(answer) == ErrorCode.BAD_SECRET


def test_a_hub_that_restarted_empty_is_populated_again_by_its_peers(net):
    room = net.room()
    peers = [net.admitted(room.room, owner=room.owner)[1], *(net.admitted(room.room)[1] for _ in range(3))]
    restarted = Net()
    for index, peer in enumerate(peers):
        fields = {"owner": room.owner} if index == 0 else {}
        _, again = restarted.admitted(room.room, ticket=peer.ticket, resume=Resume(peer.id, peer.secret), **fields)
        assert again.id == peer.id
    assert {p.id for p in again.peers} == {p.id for p in peers[:-1]}
    assert [p.id for p in again.peers if p.owner] == [peers[0].id]


def test_a_hub_with_another_key_does_not_take_tickets(net):
    room = net.room()
    _, answer = Net(key=bytes(32)).join(room.room, ticket=room.ticket)
    assert error_of(answer) == ErrorCode.ROOM_NOT_FOUND


def test_a_ticket_is_for_its_room_and_its_time(net):
    room, other = net.room(), net.room()
    restarted = Net()
    assert error_of(restarted.join(other.room, ticket=room.ticket)[1]) == ErrorCode.ROOM_NOT_FOUND
    restarted.wall += TICKET_LIFETIME_S + 1
    assert error_of(restarted.join(room.room, ticket=room.ticket)[1]) == ErrorCode.ROOM_NOT_FOUND
    later = f"{int(WALL + 10 * TICKET_LIFETIME_S):x}.{room.ticket.partition('.')[2]}"
    assert error_of(restarted.join(room.room, ticket=later)[1]) == ErrorCode.ROOM_NOT_FOUND


def test_a_room_that_is_still_there_needs_no_ticket(net):
    room = net.room().room
    ada, welcome = net.admitted(room)
    net.wall += TICKET_LIFETIME_S + 1
    net.lose(ada)
    net.admitted(room, resume=Resume(welcome.id, welcome.secret), ticket=welcome.ticket)


@given(ticket=st.text(), room=st.text(), peer=st.binary(min_size=16, max_size=16))
def test_seals_hold_against_any_text(ticket, room, peer):
    seals = Seals(KEY)
    assert not seals.is_ticket(ticket, room, WALL)
    assert not seals.is_owner_key(ticket, room)
    assert not seals.is_resume_secret(ticket, room, peer)


def test_the_kinds_of_seals_do_not_stand_for_each_other():
    seals, peer = Seals(KEY), bytes([255]) * 16
    assert not seals.is_ticket(f"{peer.hex()}.{seals.resume_secret('abcde', peer)}", "abcde", WALL)
    assert not seals.is_owner_key(seals.ticket("abcde", WALL).split(".")[1], "abcde")


# ── the owner ───────────────────────────────────────────────────────────────────────────────────────
def test_the_owners_key_marks_the_owner_towards_the_others(net):
    room = net.room()
    ben, _ = net.admitted(room.room)
    _, to_ada = net.admitted(room.room, owner=room.owner)
    assert net.drain(ben)[1:] == [Joined(to_ada.id, owner=True)]
    assert net.admitted(room.room)[1].peers[1] == PeerEntry(to_ada.id, owner=True)


def test_a_wrong_owners_key_is_refused(net):
    room, other = net.room(), net.room()
    assert error_of(net.join(room.room, owner=other.owner)[1]) == ErrorCode.BAD_SECRET


# ── bounds ──────────────────────────────────────────────────────────────────────────────────────────
def test_a_crowd_of_strangers_takes_no_members_place():
    net = Net(RouterLimits(peers_per_room=4))
    room = net.room()
    ada, to_ada = net.admitted(room.room)
    net.lose(ada)
    net.pass_time(PEER_GRACE_S)  # gone: its place may be taken
    for _ in range(4):
        net.admitted(room.room)
    assert error_of(net.join(room.room)[1]) == ErrorCode.ROOM_FULL
    net.admitted(room.room, resume=Resume(to_ada.id, to_ada.secret))
    net.admitted(room.room, owner=room.owner)
    assert len(net.closed) == 1, "only the fifth stranger was turned away"


def test_returning_peers_are_bounded_too():
    net = Net(RouterLimits(peers_per_room=2))
    room = net.room().room
    secrets = []
    for _ in range(6):
        connection, welcome = net.admitted(room)
        secrets.append(Resume(welcome.id, welcome.secret))
        net.say(connection, encode_message(Leave()))
    answers = [net.join(room, resume=secret)[1] for secret in secrets]
    assert [isinstance(a, Welcome) for a in answers] == [True] * 4 + [False] * 2


def test_guessing_room_ids_soon_ends(net):
    codes = [error_of(net.join(f"abcde{i:03}".replace("0", "z").replace("1", "y"))[1]) for i in range(100)]
    found = codes.count(ErrorCode.ROOM_NOT_FOUND)
    assert 5 <= found <= 10
    assert set(codes[found:]) == {ErrorCode.TOO_MANY_JOINS}
    _, answer = net.join("abcde")
    assert 0 < answer.retry_after < 60


def test_a_stranger_behind_the_same_proxy_does_not_lock_members_out(net):
    room = net.room()
    ada, to_ada = net.admitted(room.room)
    for _ in range(50):
        net.join("abcdefgh")
    net.lose(ada)
    assert error_of(net.join(room.room)[1]) == ErrorCode.TOO_MANY_JOINS
    net.admitted(room.room, resume=Resume(to_ada.id, to_ada.secret))
    net.admitted(room.room, ticket=to_ada.ticket)


def test_guesses_of_secrets_are_charged_like_guesses_of_rooms(net):
    room = net.room().room
    _, to_ada = net.admitted(room)
    codes = [error_of(net.join(room, resume=Resume(to_ada.id, "0" * 64))[1]) for _ in range(50)]
    assert codes[-1] == ErrorCode.TOO_MANY_JOINS


def test_an_ipv6_network_is_one_address(net):
    room = net.room().room
    for i in range(50):
        net.join("abcdefgh", address=f"2001:db8::{i:x}")
    assert error_of(net.join(room, address="2001:db8::ffff")[1]) == ErrorCode.TOO_MANY_JOINS
    net.admitted(room, address="2001:db8:0:1::1")


def test_the_table_of_addresses_is_bounded_and_overflow_is_no_way_around():
    net = Net(RouterLimits(addresses=10, unjoined=1000, address_joins=Rate(30, 0.001)))
    answers = [net.join("abcdefgh", address=f"198.51.100.{i}")[1] for i in range(200)]
    assert kept(net.router) < 50
    assert sum(error_of(a) == ErrorCode.ROOM_NOT_FOUND for a in answers) <= 12


def test_a_class_joins_at_once_and_returns_at_once(net):
    room = net.room().room
    members = [net.admitted(room)[1] for _ in range(100)]
    restarted = Net()
    for member in members:
        restarted.admitted(room, ticket=member.ticket, resume=Resume(member.id, member.secret))
    assert restarted.router.stats().peers == 100


def test_a_member_that_keeps_reconnecting_is_slowed_down(net):
    room = net.room().room
    _, member = net.admitted(room)
    answers = [net.join(room, resume=Resume(member.id, member.secret))[1] for _ in range(1000)]
    assert error_of(answers[-1]) == ErrorCode.TOO_MANY_JOINS


def test_sockets_that_say_nothing_are_closed_in_time(net):
    connection = net.connect()
    net.pass_time(JOIN_TIMEOUT_S - 0.1)
    assert connection not in net.closed
    net.pass_time(0.1)
    assert net.closed[connection] == CloseCode.JOIN_TIMEOUT


def test_many_silent_sockets_cost_the_oldest_of_them_not_an_honest_one():
    net = Net(RouterLimits(unjoined=10))
    room = net.room().room
    member, _ = net.admitted(room)
    silent = [net.connect() for _ in range(30)]
    net.admitted(room)
    assert member not in net.closed
    assert set(net.closed) <= set(silent)
    assert net.router.stats().connections <= 12


def test_the_number_of_connections_is_bounded():
    net = Net(RouterLimits(connections=3))
    room = net.room().room
    for _ in range(3):
        net.admitted(room)
    connection = net.connect()
    assert net.closed[connection] == CloseCode.REFUSED
    assert error_of(net.inbox[connection][0]) == ErrorCode.HUB_FULL


def test_the_largest_welcome_fits_a_text_message():
    entry = IceServer(urls=["turn:" + "a" * 200 + ".example:3478"] * 4, username="u" * 100, credential="c" * 100)

    class Ice:
        def grant(self, peer, wall):
            return IceGrant((entry, entry, entry), 3600.0)

    assert len(msgspec.json.encode(Ice().grant("", 0).servers)) > ICE_TEXT_BYTES_MAX * 0.9
    limits = RouterLimits(peers_per_room=PEERS_PER_ROOM_MAX, room_newcomers=Rate(1000, 1), address_joins=Rate(1000, 1))
    net = Net(limits, ice=Ice(), public_url="https://example.org/" + "x" * 200)
    room = net.room()
    secrets = [net.router._seals.resume_secret(room.room, i.to_bytes(16, "big")) for i in range(2 * PEERS_PER_ROOM_MAX)]
    for i, secret in enumerate(secrets):
        connection = net.connect()
        join = Join(room.room, resume=Resume(i.to_bytes(16, "big").hex(), secret), owner=room.owner)
        net.router.receive_text(connection, encode_message(join), net.now, net.wall)
        sent = net.router.take_effects()
    welcome = next(e.text for e in sent if isinstance(e, Send))
    told = decode_hub_message(welcome)
    assert isinstance(told, Welcome)
    assert len(told.peers) == 2 * PEERS_PER_ROOM_MAX - 1
    assert len(welcome) <= MAX_TEXT_BYTES


# ── what peers may say ──────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"type":"leave"}',
        '{"type":"join"}',
        '{"type":"join","room":1}',
        '{"type":"join","room":"abcde"}}}',
        '{"type":"later"}',
        "[" * 10_000,
        "x" * 20_000,
        "\ud800",
    ],
)
def test_a_first_message_that_is_no_join_ends_the_connection(net, text):
    connection = net.connect()
    answer = net.say(connection, text)
    assert error_of(answer) == ErrorCode.BAD_MESSAGE
    assert net.closed[connection] == CloseCode.BAD_MESSAGE


def test_a_first_message_that_is_binary_ends_the_connection(net):
    connection = net.connect()
    assert net.router.forward(connection, bytes(100), net.now) is None
    net.pump()
    assert net.closed[connection] == CloseCode.BAD_MESSAGE


def test_an_unknown_protocol_version_is_named(net):
    connection, answer = net.join(net.room().room, protocol=2)
    assert error_of(answer) == ErrorCode.VERSION
    assert net.closed[connection] == CloseCode.REFUSED


def test_a_second_join_ends_the_connection(net):
    room = net.room().room
    connection, _ = net.admitted(room)
    assert error_of(net.say(connection, encode_message(Join(room)))) == ErrorCode.BAD_MESSAGE
    assert net.closed[connection] == CloseCode.BAD_MESSAGE


def test_unknown_types_and_fields_are_ignored_once_joined(net):
    room = net.room().room
    connection = net.connect()
    assert isinstance(net.say(connection, f'{{"type":"join","room":"{room}","new":[1]}}'), Welcome)
    assert net.say(connection, '{"type":"later","x":1}') is None
    assert connection not in net.closed
    assert net.router.stats().texts_ignored == 1


def test_a_flood_of_texts_ends_the_connection(net):
    connection, _ = net.admitted(net.room().room)
    for _ in range(30):
        net.say(connection, '{"type":"later"}')
    assert net.closed[connection] == CloseCode.BAD_MESSAGE


def test_texts_of_peers_are_not_repeated_to_anybody(net):
    connection = net.connect()
    answer = net.say(connection, '{"type":"needle-4711"}')
    assert "needle" not in encode_message(answer)


def test_room_ids_that_can_not_exist_look_like_those_that_do_not(net):
    seals = Seals(KEY)
    for room in ("", "a", "UPPER", "abcde\x00", "ä" * 8, "a" * 10_000):
        _, answer = Net().join(room, ticket=seals.ticket(room, WALL))
        assert error_of(answer) == ErrorCode.ROOM_NOT_FOUND


def test_existing_and_absent_rooms_are_refused_alike_to_an_address_over_its_budget(net):
    room = net.room().room
    for _ in range(50):
        net.join("abcdefgh")
    (_, present), (_, absent) = net.join(room), net.join("hgfedcba")
    assert present == absent


# ── restart, time, memory ───────────────────────────────────────────────────────────────────────────
def test_a_restart_is_told_to_everybody_and_forgets_all(net):
    room = net.room().room
    connections = [net.admitted(room)[0] for _ in range(3)]
    net.router.restart(2.0)
    net.pump()
    assert all(net.inbox[c][-1] == Restarting(2.0) for c in connections)
    assert all(net.closed[c] == CloseCode.RESTARTING for c in connections)
    assert net.router.stats().rooms == 0


def test_next_timer_names_the_moment_of_the_next_change(net):
    assert net.router.next_timer() is None
    connection = net.connect()
    assert net.router.next_timer() == net.now + JOIN_TIMEOUT_S
    net.say(connection, encode_message(Join(net.room().room)))
    assert net.router.next_timer() is None
    net.lose(connection)
    assert net.router.next_timer() == net.now + PEER_GRACE_S
    net.pass_time(PEER_GRACE_S)
    assert net.router.next_timer() == net.now + ROOM_GRACE_S


def test_thousands_of_generations_leave_nothing_behind(net):
    room = net.room().room
    net.admitted(room)
    net.pass_time(60)
    before = kept(net.router)
    for generation in range(5_000):
        connection, welcome = net.admitted(room, address=f"10.0.{generation % 256}.{generation // 256}")
        if generation % 3 == 0:
            net.lose(connection)
            connection, _ = net.admitted(room, resume=Resume(welcome.id, welcome.secret))
        if generation % 2:
            net.lose(connection)
        else:
            net.say(connection, encode_message(Leave()))
        net.pass_time(1.0)
        net.inbox.clear()
    net.pass_time(PEER_GRACE_S)
    net.join("abcde")  # addresses are forgotten when a new one comes
    net.pass_time(60)
    assert kept(net.router) <= before + 5


def test_slow_peers_are_expelled_and_may_come_back(net):
    room = net.room().room
    connection, welcome = net.admitted(room)
    net.router.expel_slow(connection, net.now)
    net.pump()
    assert net.closed[connection] == CloseCode.TOO_SLOW
    net.admitted(room, resume=Resume(welcome.id, welcome.secret))


@given(costs=st.lists(st.tuples(st.floats(0, 50), st.floats(0, 5)), max_size=50))
def test_a_bucket_never_gives_more_than_burst_and_rate(costs):
    bucket, now, taken = Bucket(Rate(20, 3), 0.0), 0.0, 0.0
    for cost, pause in costs:
        now += pause
        if not bucket.take(cost, now):
            taken += cost
    assert taken <= 20 + 3 * now + 1e-6


@given(cost=st.floats(1, 20))
def test_a_bucket_gives_after_the_wait_it_names(cost):
    bucket = Bucket(Rate(20, 3), 0.0)
    bucket.take(20, 0.0)
    assert bucket.take(cost, bucket.take(cost, 0.0) + 1e-9) == 0


class RoomsModel(RuleBasedStateMachine):
    """Peers come, go, break and return in any order; what each one was told has to be true."""

    clients = Bundle("clients")
    secrets = Bundle("secrets")

    def __init__(self) -> None:
        super().__init__()
        generous = Rate(1e9, 1e9)
        self.net = Net(
            RouterLimits(texts=generous, room_newcomers=generous, room_returners=generous, address_joins=generous)
        )
        self.rooms = [self.net.room().room for _ in range(2)]
        self.alive: dict[int, tuple[int, str]] = {}  # connection -> room index, peer id

    @rule(target=clients, room=st.integers(0, 1))
    def arrive(self, room):
        connection, welcome = self.net.admitted(self.rooms[room])
        self.alive[connection] = (room, welcome.id)
        self.net.inbox[connection][0] = welcome
        return (connection, room, Resume(welcome.id, welcome.secret))

    @rule(target=clients, client=clients)
    def return_or_replace(self, client):
        _, room, resume = client
        for connection in [c for c, (r, p) in self.alive.items() if (r, p) == (room, resume.id)]:
            del self.alive[connection]
        connection, welcome = self.net.admitted(self.rooms[room], resume=resume)
        assert welcome.id == resume.id
        self.alive[connection] = (room, welcome.id)
        return (connection, room, resume)

    @rule(client=clients, politely=st.booleans())
    def go(self, client, politely):
        connection = client[0]
        if connection in self.alive:
            del self.alive[connection]
            if politely:
                self.net.say(connection, encode_message(Leave()))
            else:
                self.net.lose(connection)

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0]))
    def wait(self, seconds):
        self.net.pass_time(seconds)

    @rule(source=clients, destination=clients)
    def send(self, source, destination):
        found = self.net.forward(source[0], destination[2].id)
        if found is not None:
            room, peer = self.alive[found.connection]
            assert (room, peer) == (self.alive[source[0]][0], destination[2].id)
            assert found.source.hex() == self.alive[source[0]][1]
        elif source[0] in self.alive:
            reachable = {(r, p) for c, (r, p) in self.alive.items() if c != source[0]}
            assert (self.alive[source[0]][0], destination[2].id) not in reachable

    @invariant()
    def everybody_knows_who_is_there(self):
        for connection, (room, peer) in self.alive.items():
            assert connection not in self.net.closed
            known: set[str] = set()
            for message in self.net.inbox[connection]:
                match message:
                    case Welcome(peers=peers):
                        known = {p.id for p in peers}
                    case Joined(id=id):
                        known.add(id)
                    case Left(id=id):
                        known.discard(id)
            here = {p for r, p in self.alive.values() if r == room} - {peer}
            away = {p.hex() for r, p in self.net.router._away if r == self.rooms[room]}
            assert here <= known <= here | away

    @invariant()
    def numbers_agree(self):
        stats = self.net.router.stats()
        assert stats.peers == stats.connections == len(self.alive)


TestRoomsModel = RoomsModel.TestCase
TestRoomsModel.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
