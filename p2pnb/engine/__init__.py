"""What runs in the background thread of a kernel: it drives the protocol over paths.

    thread.py     the thread and its event loop, its end, and what holds after a fork
    hub_client.py the WebSocket to the hub, again and again
    link.py       one peer: handshake, session, paths
    upgrade.py    from the relay to WebRTC, and back up after a loss
    transfers.py  sources and sinks: bytes from values and files, and back
    member.py     one room: hub, links, budget, offers; tells a `MemberListener` what happens

Everything but `thread.py`'s own interface runs on the event loop. Nothing here prints: a background
thread's output would land under whatever cell runs.
"""
