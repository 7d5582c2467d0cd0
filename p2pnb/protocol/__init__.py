"""The peer protocol as state machines: bytes and a clock value in, bytes and events out.

Nothing in here does I/O, reads a clock or draws randomness; callers pass `now` (seconds, monotonic) and
random bytes in. `wire` lists everything that crosses the line, `hub` what peers and hub say.
"""
