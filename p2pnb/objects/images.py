"""Images and figures as PNG.

PNG keeps every pixel of the modes it has; others are refused with the conversion to make. A received image is opened by
Pillow's PNG reader only, after its size was read from the header and found to be in proportion to the bytes that
arrived. A figure arrives as a `Picture`: what it looks like, not what it was made of.

Rejected: SVG for figures. Its only use is to be rendered by a browser, and SVG can carry scripts; a `Picture` offers a
notebook nothing but PNG. Rejected: the image's original file bytes (JPEG, TIFF, …): each format is one more decoder
exposed to a peer; a file can be sent as a file.
"""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any, Final

from p2pnb.errors import CorruptDataError, NotSupportedError, TooLargeError
from p2pnb.objects.arrays import is_from
from p2pnb.objects.codec import Codec, Packed
from p2pnb.objects.preview import human_bytes
from p2pnb.protocol.wire import Preview

__all__ = ["FigureCodec", "ImageCodec", "Picture"]

MAX_PIXELS: Final = 89_478_485  # Pillow's own bound against decompression bombs: 256 MiB of RGB
MAX_FREE_BYTES: Final = 48 * 1024 * 1024  # pixels up to this size may be as compressible as they like
MAX_RATIO: Final = 100  # beyond it, bytes of pixels per byte received
MAX_PNG_BYTES: Final = 1 << 30
_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_MODES: Final = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG colour type


class Picture:
    """A received picture: `png` holds its file; a notebook shows it as an image and as nothing else."""

    __slots__ = ("_png", "_size")

    def __init__(self, png: bytes) -> None:
        self._size = check_png(png)
        self._png = bytes(png)

    @property
    def png(self) -> bytes:
        """The PNG file's bytes."""
        return self._png

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._size

    def __eq__(self, other: object) -> bool:
        return self._png == other._png if isinstance(other, Picture) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._png)

    def __repr__(self) -> str:
        return f"<Picture {self._size[0]} × {self._size[1]} pixels, {human_bytes(len(self._png))}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"image/png": base64.b64encode(self._png).decode(), "text/plain": repr(self)}


def check_png(png: bytes | memoryview) -> tuple[int, int]:
    """Return width and height of a whole PNG file in proportion to its bytes; raises `CorruptDataError`."""
    if len(png) > MAX_PNG_BYTES or bytes(png[:8]) != _SIGNATURE or bytes(png[12:16]) != b"IHDR" or len(png) < 57:
        raise CorruptDataError("the received picture is no PNG file")
    width, height, depth, colour = struct.unpack_from(">IIBB", png, 16)
    intact = zlib.crc32(png[12:29]) == struct.unpack_from(">I", png, 29)[0]
    if not intact or colour not in _CHANNELS or depth not in (1, 2, 4, 8, 16):
        raise CorruptDataError("the received picture is no PNG file")
    if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
        raise CorruptDataError(f"the received picture has {width:,} × {height:,} pixels; at most {MAX_PIXELS:,} in all")
    pixel_bytes = width * height * _CHANNELS[colour] * max(depth // 8, 1)
    if pixel_bytes > max(MAX_FREE_BYTES, MAX_RATIO * len(png)):
        raise CorruptDataError("the received picture would take far more memory than the bytes that arrived")
    position = 8
    while position < len(png):  # chunk by chunk to its end
        if position + 12 > len(png):
            raise CorruptDataError("the received picture is cut off")
        (length,) = struct.unpack_from(">I", png, position)
        kind = bytes(png[position + 4 : position + 8])
        position += 12 + length
        if kind == b"IEND" and position == len(png):
            return width, height
    raise CorruptDataError("the received picture is cut off")


def _save(image: Any) -> bytes:
    for level in (6, 0):
        out = io.BytesIO()
        image.save(out, format="PNG", compress_level=level)
        png = out.getvalue()
        try:
            check_png(png)
        except CorruptDataError:
            continue  # a large even picture: not compressed, it is in proportion
        return png
    raise TooLargeError(f"an image of {image.width:,} × {image.height:,} pixels is too large; send its file")


class ImageCodec(Codec):
    """PIL images."""

    name = "image"

    def takes(self, value: object) -> bool:
        if not is_from(value, "PIL"):
            return False
        from PIL import Image

        return isinstance(value, Image.Image)

    def encode(self, value: Any) -> Packed:
        if value.mode not in _MODES:
            raise NotSupportedError(
                f"an image of mode {value.mode} can't be sent without loss; send image.convert('RGB'), or its numbers: "
                "numpy.asarray(image)"
            )
        if getattr(value, "n_frames", 1) > 1:
            raise NotSupportedError("an image of several frames can't be sent; send its file, or image.copy() for one")
        if not value.width or not value.height:
            raise NotSupportedError("an image without pixels can't be sent")
        if value.width * value.height > MAX_PIXELS:
            raise TooLargeError(f"an image of {value.width:,} × {value.height:,} pixels is too large; send its file")
        bare = value.copy()
        bare.info = {
            key: value.info[key] for key in ("transparency",) if key in value.info
        }  # no paths, places or dates
        return Packed(b"", [(memoryview(_save(bare)),)])

    def check(self, note: bytes, lengths: Sequence[int]) -> None:
        if len(lengths) != 1 or lengths[0] > MAX_PNG_BYTES or note:
            raise CorruptDataError("the received picture is malformed")

    def decode(self, note: bytes, buffers: Sequence[memoryview]) -> object:
        png = bytes(buffers[0])
        check_png(png)
        try:
            from PIL import Image
        except ImportError:
            return Picture(png)
        try:
            with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
                image.verify()
            with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
                if getattr(image, "n_frames", 1) > 1 or image.width * image.height > MAX_PIXELS:
                    raise CorruptDataError("the received picture has several frames")
                image.load()
                found = image.copy()
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise CorruptDataError("the received picture is damaged") from error
        found.info = {key: image.info[key] for key in ("transparency",) if key in image.info}
        return found

    def preview(self, value: Any) -> Preview:
        return Preview(self.type_name(value), f"{value.width:,} × {value.height:,} pixels, mode {value.mode}")

    def type_name(self, value: object) -> str:
        return "PIL.Image"


class FigureCodec(Codec):
    """matplotlib figures, `Picture`s and IPython's PNG images; all arrive as `Picture`."""

    name = "picture"

    def takes(self, value: object) -> bool:
        if isinstance(value, Picture):
            return True
        if is_from(value, "matplotlib"):
            from matplotlib.figure import Figure

            return isinstance(value, Figure)
        return is_from(value, "IPython") and getattr(value, "format", "") == "png" and hasattr(value, "data")

    def encode(self, value: Any) -> Packed:
        if isinstance(value, Picture):
            png = value.png
        elif is_from(value, "IPython"):
            if type(value.data) is not bytes:
                raise NotSupportedError("this image only refers to a file or address; send its bytes")
            png = value.data
        else:
            out = io.BytesIO()
            value.savefig(out, format="png", metadata={"Software": None})
            png = out.getvalue()
        try:
            check_png(png)
        except CorruptDataError as error:
            raise NotSupportedError(f"this picture can't be sent ({error}); make it smaller") from error
        return Packed(b"", [(memoryview(png),)])

    def check(self, note: bytes, lengths: Sequence[int]) -> None:
        if len(lengths) != 1 or lengths[0] > MAX_PNG_BYTES or note:
            raise CorruptDataError("the received picture is malformed")

    def decode(self, note: bytes, buffers: Sequence[memoryview]) -> object:
        return Picture(bytes(buffers[0]))

    def preview(self, value: Any) -> Preview | None:
        if isinstance(value, Picture):
            return Preview("Picture", repr(value)[1:-1])
        if is_from(value, "matplotlib"):
            axes = [axis.get_title() for axis in value.get_axes()][:9]
            return Preview(self.type_name(value), "a figure, arrives as a picture", text="\n".join(filter(None, axes)))
        return None
