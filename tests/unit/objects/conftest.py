"""What every test of objects needs: a value's way to another peer and back, without the peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from p2pnb.objects import Encoded, decode, encode, layout


def receive(encoded: Encoded) -> Any:
    """Put the content where a receiver would have it, check the announcement, and decode."""
    content = memoryview(bytearray(b"".join(encoded.chunks())))
    assert len(content) == encoded.content_bytes
    layout(encoded.codec, encoded.head, len(content))
    return decode(encoded.codec, encoded.head, content)


@pytest.fixture
def travel() -> Callable[[Any], Any]:
    return lambda value: receive(encode(value))
