"""Images keep their pixels; figures arrive as pictures; files that would explode are refused by their header."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import IPython.display
import msgspec
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin

from p2pnb.errors import CorruptDataError, NotSupportedError, TooLargeError
from p2pnb.objects import Picture, decode, encode


def png_of(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG", **options)
    return out.getvalue()


def receive(png: bytes, codec: str = "image") -> object:
    return decode(codec, msgspec.msgpack.encode([1, [len(png)], b""]), memoryview(bytearray(png)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_image_comes_back_equal(mode, travel):
    noise = np.random.default_rng(1).integers(0, 256, (20, 30, 4), dtype="u1")
    sent = Image.fromarray(noise[..., 0].astype("u2") * 7) if mode == "I;16" else Image.fromarray(noise).convert(mode)
    got = travel(sent)
    assert type(got) is Image.Image
    assert (got.mode, got.size) == (sent.mode, sent.size)
    assert got.tobytes() == sent.tobytes()
    assert got.getpalette() == sent.getpalette()


def test_transparency_is_kept_and_other_notes_stay_home(travel):
    sent = Image.new("RGB", (2, 2), (1, 2, 3))
    sent.info = {"transparency": (1, 2, 3), "comment": "taken at home", "exif": b"Exif\x00\x00"}
    got = travel(sent)
    assert got.info == {"transparency": (1, 2, 3)}
    assert b"home" not in b"".join(encode(sent).chunks())


def test_even_image_of_any_size_comes_back(travel):
    assert travel(Image.new("RGB", (5000, 5000), "red")).getpixel((4999, 4999)) == (255, 0, 0)


def test_modes_png_lacks_are_refused_with_advice():
    with pytest.raises(NotSupportedError, match="convert"):
        encode(Image.new("CMYK", (2, 2)))


def test_image_of_too_many_pixels_is_refused():
    with pytest.raises(TooLargeError, match="file"):
        encode(Image.new("1", (20_000, 20_000)))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(2**31 - 1, 2**31 - 1), (8000, 8000), (0, 5), (2**32 - 1, 1)])
@pytest.mark.parametrize("codec", ["image", "picture"])
def test_bomb_is_refused_by_its_header(width, height, codec):
    with pytest.raises(CorruptDataError):
        receive(bomb(width, height), codec)


def test_damaged_or_foreign_files_are_refused():
    good = png_of(Image.fromarray(np.random.default_rng(1).integers(0, 255, (30, 30, 3), dtype="u1")))
    jpeg, gif = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 8)).save(jpeg, format="JPEG")
    Image.new("L", (8, 8)).save(gif, format="GIF")
    for damaged in (
        good[:-12],
        good[:60],
        good + b"x",
        good[:70] + b"\xff" + good[71:],
        b"",
        jpeg.getvalue(),
        gif.getvalue(),
    ):
        with pytest.raises(CorruptDataError):
            receive(damaged)


def test_text_in_an_image_that_would_explode_is_refused():
    notes = PngImagePlugin.PngInfo()
    notes.add_text("a", "x" * 80_000_000, zip=True)
    with pytest.raises(CorruptDataError):
        receive(png_of(Image.new("L", (4, 4)), pnginfo=notes))


def test_figure_arrives_as_a_picture(travel):
    figure = Figure()
    figure.subplots().plot([1, 2])
    got = travel(figure)
    assert isinstance(got, Picture)
    assert got.size == (640, 480)
    assert Image.open(io.BytesIO(got.png)).size == got.size
    assert travel(got) == got
    assert travel(IPython.display.Image(data=got.png)) == got


def test_picture_offers_a_notebook_nothing_but_an_image(travel):
    got = travel(Picture(png_of(Image.new("RGB", (3, 2)))))
    bundle = got._repr_mimebundle_()
    assert sorted(bundle) == ["image/png", "text/plain"]
    assert base64.b64decode(bundle["image/png"]) == got.png
    assert bundle["text/plain"].startswith("<Picture 3 × 2 pixels")
    assert not any(hasattr(got, f"_repr_{kind}_") for kind in ("html", "svg", "javascript", "markdown"))
