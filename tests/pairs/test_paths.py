"""Paths come, go, fall silent and flap; both sides notice and go on, and nothing grows."""

from __future__ import annotations

import sys

import pytest

from p2pnb.protocol.wire import PATH_DEAD_S, PATH_DOUBT_S, PATH_SUSPECT_S, PING_ACTIVE_S
from tests.pairs.line import Line, Wire


def standing(*ranks: int) -> tuple[Line, list[Wire]]:
    line = Line()
    wires = [line.open_path(rank) for rank in ranks]
    line.settle(3)
    return line, wires


def live(line: Line, seconds: float, step: float = 0.1) -> None:
    """Time passes and everything that is under way arrives."""
    for _ in range(round(seconds / step)):
        line.advance(step)
        for wire in line.wires.values():
            for name in "ab":
                line.deliver(wire, name, 1000)


def preferred(line: Line) -> tuple[int | None, int | None]:
    return line.a.session.preferred, line.b.session.preferred


@pytest.mark.parametrize("lost_end", ["a", "b"])
def test_a_closed_path_hands_over_at_once_and_loses_nothing(lost_end: str) -> None:
    line, (relay, direct) = standing(0, 1)
    assert preferred(line) == (direct.number, direct.number)
    speaker = line.peer(lost_end)
    speaker.say(line.now)  # sealed for the direct path, never delivered
    line.close_path(direct, "a", "b")
    line.deliver(relay, "a", 100)
    line.deliver(relay, "b", 100)
    other = line.peer(speaker.other_name)
    assert other.heard == speaker.said, "sent again on the relay without any timer"


@pytest.mark.parametrize("silent", [("a",), ("b",), ("a", "b")])
@pytest.mark.parametrize("speaker", ["a", "b"])
def test_silence_in_one_direction_is_noticed_by_both_sides(silent: tuple[str, ...], speaker: str) -> None:
    """Each by itself: no side waits for the other's word."""
    line, (_, direct) = standing(0, 1)
    direct.silent.update(silent)
    line.peer(speaker).say(line.now)
    live(line, PATH_DOUBT_S + 2 * PING_ACTIVE_S)
    assert line.peer(line.peer(speaker).other_name).heard == line.peer(speaker).said, "over the relay meanwhile"
    live(line, 25 + PATH_DEAD_S)  # the side that had nothing to say pings only every 20 s
    assert not any(direct.number in peer.session._paths for peer in (line.a, line.b))
    line.b.say(line.now)
    live(line, 1)
    line.check_settled()


# ── suspicion ───────────────────────────────────────────────────────────────────────────────────────
def hold(line: Line, held: list[Wire], seconds: float) -> None:
    """Time passes; what is on these wires waits, and everything else arrives."""
    for _ in range(round(seconds / 0.05)):
        line.advance(0.05)
        for wire in line.wires.values():
            for name in "ab":
                if wire not in held:
                    line.deliver(wire, name, 1000)


def test_frames_go_a_second_way_within_a_second_of_silence_in_order_and_once() -> None:
    """F5. The silent path keeps its place meanwhile: most silences end."""
    line, (_, direct) = standing(0, 2)
    for _ in range(3):
        line.a.say(line.now)
    hold(line, [direct], PATH_SUSPECT_S - 0.1)
    assert line.b.heard == []
    hold(line, [direct], 0.3)
    assert line.b.heard == line.a.said, "within a second"
    for _ in range(3):
        line.a.say(line.now)
        hold(line, [direct], 0.1)
        assert line.b.heard == line.a.said, "from now on at once"
    assert line.a.session.suspect(direct.number) and not line.a.session.in_doubt(direct.number)
    assert line.a.session.preferred == direct.number
    live(line, 1)
    line.check_settled()


def test_an_answer_ends_the_suspicion() -> None:
    line, (_, direct) = standing(0, 2)
    line.a.say(line.now)
    hold(line, [direct], 1.5)
    assert line.a.session.suspect(direct.number)
    live(line, 0.2)
    assert not line.a.session.suspect(direct.number)
    recorded = sum(len(wire.recorded) for wire in line.wires.values() if wire is not direct)
    line.a.say(line.now)
    live(line, 0.2)
    assert sum(len(wire.recorded) for wire in line.wires.values() if wire is not direct) == recorded, "one way again"
    assert line.b.heard == line.a.said


def test_silence_after_the_suspicion_becomes_doubt_and_the_other_path_comes_first() -> None:
    line, (relay, direct) = standing(0, 2)
    direct.silent.update("ab")
    line.a.say(line.now)
    live(line, PATH_DOUBT_S + PING_ACTIVE_S)
    assert line.a.session.in_doubt(direct.number) and line.a.session.preferred == relay.number
    assert line.b.heard == line.a.said


def test_second_way_is_of_another_kind_if_there_is_one() -> None:
    """What silences one lane mostly silences its sisters."""
    line, (relay, *lanes) = standing(0, 2, 2, 2)
    for peer in (line.a, line.b):
        assert peer.session.preferred in {lane.number for lane in lanes}
    line.a.say(line.now)
    hold(line, lanes, 1.2)
    assert line.b.heard == line.a.said
    assert relay.recorded


def test_lone_path_stays_alone_under_suspicion() -> None:
    line, (direct,) = standing(2)
    line.a.say(line.now)
    hold(line, [direct], 3)
    assert line.a.session.suspect(direct.number)
    live(line, 0.5)
    line.check_settled()


def test_long_round_trips_are_not_suspicious() -> None:
    """Four of them are waited for: a line with a second of queue is slow, not dead."""
    line, (relay, direct) = standing(0, 2)
    for peer in (line.a, line.b):
        peer.session._paths[direct.number].round_trip_s = 0.6
    before = len(relay.recorded)
    for _ in range(5):
        line.a.say(line.now)
        hold(line, [direct], 1.5)
        assert not line.a.session.suspect(direct.number)
        live(line, 0.5)
        for peer in (line.a, line.b):
            peer.session._paths[direct.number].round_trip_s = 0.6
    assert line.b.heard == line.a.said
    chats = len(relay.recorded) - before
    assert chats < 10, "nothing but pings on the relay"


def test_lanes_do_not_make_the_preference_flap() -> None:
    """Lanes of one rank come, go and answer late; frames stay on the one they are on while it is fit."""
    line, (_, first, *_) = standing(0, 2)
    for peer in (line.a, line.b):
        peer.preferences.clear()
    lanes = []
    for number in range(40):
        lanes.append(line.open_path(2))
        live(line, 0.3)
        if number % 3 == 2:
            gone = lanes.pop(0)
            line.close_path(gone, "a", "b")
        late = lanes[number % len(lanes)]
        line.a.say(line.now)
        hold(line, [late], 1.2)
        live(line, 0.3)
    assert line.a.session.preferred == line.b.session.preferred == first.number
    assert line.a.preferences == line.b.preferences == []
    line.check_settled()


def test_suspect_lane_hands_over_to_its_sister_once() -> None:
    line, (_, *lanes) = standing(0, 2, 2, 2)
    for peer in (line.a, line.b):
        peer.preferences.clear()
    for _ in range(20):
        slow = line.wires[line.a.session.preferred or 0]
        line.a.say(line.now)
        line.b.say(line.now)
        hold(line, [slow], 1.0)
        live(line, 0.5)
    assert len(line.a.preferences) <= 20 and len(line.b.preferences) <= 20, "one change for a suspicion at most"
    line.check_settled()
    assert len(lanes) == 3


def test_bulk_under_way_makes_silence_show_without_a_word_said() -> None:
    line, (_, direct) = standing(0, 2)
    line.a.offer(9000, 0, False, line.now)
    live(line, 0.2)
    line.b.accept(1, line.now)
    live(line, 0.2)
    line.a.send_bulk(direct.number, 3, line.now)
    hold(line, [direct], 2.2 * PATH_SUSPECT_S)
    assert line.a.session.suspect(direct.number), "a ping within the time an acknowledgement takes"


def test_what_still_comes_in_does_not_end_the_doubt() -> None:
    """Else a path that works one way only would be doubted and trusted in turn, with everything sent each time."""
    line, (relay, direct) = standing(0, 1)
    direct.silent.add("b")
    line.a.say(line.now)
    for _ in range(100):
        line.b.session._ping(direct.number, line.now)  # b's side of the direct path goes on talking
        line.b.flush(line.now)
        live(line, 0.2)
    assert line.a.doubts == 1
    assert line.a.session.preferred == relay.number


def test_an_answer_ends_the_doubt() -> None:
    line, (relay, direct) = standing(0, 1)
    line.a.say(line.now)
    for _ in range(110):  # 11 s: nothing of the direct path is delivered, as when a kernel holds the GIL
        line.advance(0.1)
        for name in "ab":
            line.deliver(relay, name, 100)
    assert line.a.session.in_doubt(direct.number) and line.a.session.preferred == relay.number
    live(line, 1)
    assert not line.a.session.in_doubt(direct.number) and preferred(line) == (direct.number,) * 2
    assert line.b.heard == line.a.said


def test_a_new_path_takes_over_from_a_doubted_one_at_once() -> None:
    line, (direct,) = standing(1)
    direct.silent.update("ab")
    line.a.say(line.now)
    line.advance(PATH_DOUBT_S + PING_ACTIVE_S)
    assert line.a.session.in_doubt(direct.number)
    relay = line.open_path(0)
    for name in "abab":
        line.deliver(relay, name, 100)
    assert line.b.heard == line.a.said, "not only after the old path is given up"


@pytest.mark.parametrize("verb", ["record", "answer"])
def test_a_lost_last_record_does_not_stall(verb: str) -> None:
    """Nothing follows that would show the gap, except a ping."""
    line, (wire,) = standing(0)
    line.a.say(line.now)
    if verb == "answer":
        line.deliver(wire, "b", 10)
        line.advance(0.03)
        wire.queues["a"].pop()
    else:
        wire.queues["b"].pop()
    for _ in range(50):
        live(line, 0.5)
        if not line.a.paths or not line.b.paths:
            break
    assert not line.a.paths or not line.b.paths, "the gap shows as a bad tag"
    line.open_path(0)
    live(line, PATH_DEAD_S + 10)
    line.check_settled()


def test_a_transfer_whose_last_chunk_is_lost_goes_on() -> None:
    line, (wire,) = standing(0)
    line.a.offer(20_000, 100, True, line.now)
    for _ in range(3):
        live(line, 0.1)
        for number, receiving in line.b.receiving.items():
            if receiving.state == "offered":
                line.b.accept(number, line.now)
    line.a.send_bulk(wire.number, 1, line.now)
    wire.queues["b"].clear()
    live(line, 40)
    line.open_path(0)
    line.settle()
    line.check_settled()
    assert line.b.receiving[1].state == "done"


def test_a_path_that_flaps_every_second_still_makes_progress() -> None:
    """F6: a minute of one second up, one second down, one record in flight lost each time."""
    line = Line()
    line.a.offer(60_000, 0, False, line.now)
    progress = []
    for second in range(60):
        wire = line.open_path(0)
        line.a.say(line.now)
        for _ in range(4):
            live(line, 0.2)
            for peer in (line.a, line.b):
                for number, receiving in peer.receiving.items():
                    if receiving.state == "offered":
                        peer.accept(number, line.now)
                peer.write_pieces(100, line.now)
            line.a.send_bulk(wire.number, 2, line.now)
        line.close_path(wire, "a", "b")
        line.advance(1.0)
        progress.append(line.a.exchange.acknowledged_bytes(1))
        line.check_always()
        assert len(line.b.heard) >= second, "one second is enough for what waited"
    assert len(set(progress[:40])) > 10, "bytes arrive in nearly every second"
    line.open_path(0)
    line.settle()
    line.check_settled()


def footprint(line: Line) -> list[int]:
    """Every container that a path instance could leave something in."""
    return [
        len(value) if hasattr(value, "__len__") else 0
        for peer in (line.a, line.b)
        for machine in (peer.session, peer.exchange)
        for _, value in sorted(vars(machine).items())
    ] + [len(out.in_flight) for peer in (line.a, line.b) for out in peer.exchange._outgoing.values()]


def test_five_thousand_path_instances_leave_nothing_behind() -> None:
    line, _ = standing(0)
    line.a.offer(9000, 0, False, line.now)
    line.settle(1)
    sizes = []
    for generation in range(5000):
        wire = line.open_path(1)
        for name in "abab":
            line.deliver(wire, name, 100)
        line.a.send_bulk(wire.number, 1, line.now)
        line.close_path(wire, "a", "b")
        line.advance(0.03)
        for name in "ab":
            line.deliver(line.wires[1], name, 100)
        if generation in (100, 4999):
            sizes.append(footprint(line))
        if generation > 1:
            del line.wires[next(n for n in line.wires if n != 1)]  # the test's own record of it
            line.wires[0] = line.wires.pop(0, wire)
    assert sizes[0] == sizes[1]
    assert sys.getsizeof(line.a.session._paths) < 1000


CUTS = range(0, 100, 2)  # records delivered before the cut


@pytest.mark.parametrize("inline", [True, False])
def test_a_transfer_cut_at_any_record_never_looks_complete(inline: bool) -> None:
    whole = 0
    for cut in CUTS:
        line, (wire,) = standing(0)
        line.a.offer(9000, 50, inline, line.now)
        delivered = 0
        for _ in range(30):
            for name in "ab":
                delivered += line.deliver(wire, name, max(0, min(1000, cut - delivered)))
            for number, receiving in line.b.receiving.items():
                if receiving.state == "offered":
                    line.b.accept(number, line.now)
            line.b.write_pieces(100, line.now)
            line.a.send_bulk(wire.number, 100, line.now)
            line.advance(0.03)
        line.close_path(wire, "a", "b")
        states = line.a.sending[1].state, line.b.receiving[1].state if 1 in line.b.receiving else "never seen"
        assert states[0] != "done" or states[1] == "done", "the sender never believes it before the receiver has it"
        whole += states[1] == "done"
        line.check_always()  # and `AllArrived` itself compares every byte
        line.open_path(0)
        line.settle()
        line.check_settled()
    assert 0 < whole < len(CUTS), "the cuts lie on both sides of the end"
