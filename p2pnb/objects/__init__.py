"""Python values to bytes and back: `encode`, `layout`, `decode`; a registry of codecs; previews.

What arrives is data, never code: no pickle, nothing evaluated, nothing looked up by a name from a peer beyond closed
sets. numpy, pyarrow, pandas and polars are imported when a value of theirs is sent or received, not before.
"""

from p2pnb.objects.codec import Codec, Encoded, Packed
from p2pnb.objects.images import Picture
from p2pnb.objects.records import Record, register_dataclass
from p2pnb.objects.registry import decode, encode, layout, register_codec

__all__ = [
    "Codec",
    "Encoded",
    "Packed",
    "Picture",
    "Record",
    "decode",
    "encode",
    "layout",
    "register_codec",
    "register_dataclass",
]
