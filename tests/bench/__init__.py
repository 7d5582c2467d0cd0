"""Measurements, run by `make bench`: p2pnb's figures beside those of others, from one run on one machine.

    registry.py     rows, figures and goals, and what it means that a goal is met
    report.py       the table and the JSON
    sides.py        processes to measure in: kernels of Jupyter servers, and plain scripts (also in a netlab)
    peer.py         what runs in such a process: a room, and a stop-watch
    rows/           one module per group of rows
    references/     the others: magic-wormhole, bare data channels, a bare TCP loop, a bare relay

Speed is measured here, not asserted: the tests beside it are about the bench itself.
"""
