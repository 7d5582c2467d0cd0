"""The command line: `p2pnb demo`, `create`, `join`, `send`, `receive`, `doctor`."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2pnb import __version__
from p2pnb.errors import P2PError

if TYPE_CHECKING:
    from p2pnb.peer import Peer
    from p2pnb.room import Room

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except P2PError as error:
        print(f"p2pnb: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="p2pnb", description="A room in a notebook: chat, files and Python objects, kernel to kernel."
    )
    parser.add_argument("--version", action="version", version=f"p2pnb {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="two Jupyter servers, two kernels, one room; then JupyterLab to play with")
    demo.add_argument("--exit", action="store_true", help="end after the report instead of leaving JupyterLab open")
    demo.set_defaults(run=_demo)

    create = commands.add_parser("create", help="open a room and chat in it from the terminal")
    create.add_argument("--hub", help="address of a Jupyter server with p2pnb, with its token")
    _add_common(create)
    create.set_defaults(run=_create)

    join = commands.add_parser("join", help="join a room and chat in it from the terminal")
    _add_common(join)
    join.set_defaults(run=_join)

    send = commands.add_parser("send", help="join a room, send files or folders to everybody there, and leave")
    send.add_argument("paths", nargs="+", type=Path)
    _add_common(send)
    send.set_defaults(run=_send)

    receive = commands.add_parser("receive", help="join a room, wait for one item, and leave")
    receive.add_argument("--folder", type=Path, default=Path(), help="where it lands (default: here)")
    _add_common(receive)
    receive.set_defaults(run=_receive)

    doctor = commands.add_parser("doctor", help="say what works here, and what to do about what doesn't")
    doctor.set_defaults(run=_doctor)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="how others see you (default: your user name)")


def _demo(options: argparse.Namespace) -> int:
    from p2pnb.demo.script import demo

    stay = not options.exit and sys.stdin.isatty() and sys.stdout.isatty()
    return demo(stay=stay)


def _create(options: argparse.Namespace) -> int:
    from p2pnb.room import create

    with create(options.name, hub=options.hub) as room:
        print(f"Invite: {room.invite.link}\n{room.invite.qr_text()}")
        return _talk(room)


def _join(options: argparse.Namespace) -> int:
    with _joined(options) as room:
        return _talk(room)


def _send(options: argparse.Namespace) -> int:
    with _joined(options) as room:
        room.meet()
        transfer = room.send_file(options.paths)
        transfer.result()
        print(f"{transfer!r}")
    return 0


def _receive(options: argparse.Namespace) -> int:
    with _joined(options, accept=True, folder=options.folder) as room:
        value = room.receive()
        print(value)
    return 0


def _joined(options: argparse.Namespace, **settings: Any) -> Room:
    """Join with an invite that is asked for: in the arguments every user of the machine could read its words."""
    from p2pnb.room import join

    invite = input("Invite (link or code): ") if sys.stdin.isatty() else sys.stdin.readline()
    return join(invite.strip(), options.name, **settings)


def _talk(room: Room) -> int:
    print_lock = threading.Lock()

    def say(line: str) -> None:
        with print_lock:
            print(line, flush=True)

    room.on("message", lambda m: None if m.mine else say(f"{m.sender}: {m.text}"))
    told: dict[str, str] = {}

    def tell_peer(peer: Peer) -> None:
        line = f"* {peer.name} is {peer.state}" + (f" over {peer.path}" if peer.path else "")
        if told.get(peer.id) != line:  # round trips are news, too, but not here
            told[peer.id] = line
            say(line)

    room.on("peer", tell_peer)
    room.on("file", lambda item: say(f"* {item.sender} sent {item.path}"))
    room.on("object", lambda item: say(f"* {item.sender} sent {item.name} ({item.type})"))
    say("Type to chat; /send PATH sends a file; Ctrl-D leaves.")
    for line in sys.stdin:
        text = line.strip()
        if not text:
            continue
        try:
            if text.startswith("/send "):
                room.send_file(text.removeprefix("/send ").strip())
            else:
                room.chat(text)
        except P2PError as error:
            say(f"p2pnb: {error}")
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from p2pnb.doctor import report

    lines, good = report()
    print("\n".join(lines))
    return 0 if good else 1
