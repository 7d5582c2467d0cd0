"""Two rooms in a network of their own where UDP is taken away and given back; prints what happened as JSON.

Run by `test_lossy_network` under ``unshare --net``: nothing of it touches the machine's own network.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path

from p2pnb.protocol import session
from tests.integration.hostile_hub import HostileHub
from tests.integration.meeting import Meeting, see_each_other, texts, until

_SETUP = """
ip link set lo up
ip addr add 10.99.0.1/24 dev lo
nft add table inet t
nft add chain inet t blocked { type filter hook output priority 0 ; }
"""


def _run(commands: str) -> None:
    for command in commands.strip().splitlines():
        subprocess.run(command.split(), check=True, capture_output=True)


def main() -> None:
    # The protocol's patience with slow kernels, shortened alike: this is about what happens, not how soon.
    for name, seconds in (("PING_ACTIVE_S", 0.5), ("PATH_DOUBT_S", 1.5), ("PATH_DEAD_S", 4.0)):
        setattr(session, name, seconds)
    _run(_SETUP)
    facts: dict[str, object] = {}
    with HostileHub() as hub, tempfile.TemporaryDirectory() as folder:
        meeting = Meeting(hub, Path(folder))
        ada = meeting.create("Ada", relay="fallback", accept=True, direct_tcp=False)
        ben = meeting.join("Ben", relay="fallback", accept=True, direct_tcp=False)
        see_each_other([ada, ben])
        ada_sees, ben_sees = ada.peers["Ben"], ben.peers["Ada"]
        until(lambda: ada_sees.path == ben_sees.path == "webrtc", "a direct path", 20)
        ada.chat("one")
        until(lambda: texts(ben) == ["one"])

        transfer = ada.send(b"z" * 30_000_000, "item")
        until(lambda: transfer.progress > 0.02, "it moves")
        _run("nft add rule inet t blocked meta l4proto udp drop")
        began = time.monotonic()
        ada.chat("two")
        until(lambda: texts(ben) == ["one", "two"], "chat goes over the relay", 15)
        facts["chat_s"] = time.monotonic() - began
        until(lambda: ada_sees.path == ben_sees.path == "relay", "both gave up the direct path", 20)
        facts["fallback_s"] = time.monotonic() - began
        transfer.result(30)
        facts["equal"] = ben.receive("item", 5) == b"z" * 30_000_000
        facts["paths"] = transfer.per_peer["Ben"].paths

        carl = meeting.join("Carl", relay="fallback", accept=True, direct_tcp=False)
        began = time.monotonic()
        carl.send(b"c" * 500_000, "from carl").result(20)
        facts["blocked_transfer_s"] = time.monotonic() - began

        _run("nft flush chain inet t blocked")
        until(lambda: ada_sees.path == ben_sees.path == "webrtc", "direct again", 80)
        ben.chat("three")
        until(lambda: texts(ada) == ["three"])
        meeting.end()
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
