"""Image files as cameras and people make them: a table of kinds, what each is seen as, and what is said of the rest."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workloads.image_files import ImageError, looks, small

ORIENTATION = 0x0112
"""EXIF's tag of how the camera was held."""
TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""Value of the tag -> how an upright image is turned to be kept so."""


def upright() -> Image.Image:
    """An image that is another one however it is turned: bright at the top, brightest to the left of it."""
    pixels = np.zeros((40, 60), np.uint8)
    pixels[:20], pixels[:20, :20] = 120, 250
    return Image.fromarray(pixels)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp", "A.JPEG"])
def test_photographs_are_turned_upright(orientation: int, name: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    turn = TURNS[orientation]
    kept = upright() if turn is None else upright().transpose(turn)
    kept.save(tmp_path / name, exif=exif, **({"lossless": True} if name.endswith("webp") else {}))
    found = small(tmp_path / name, grey=True)
    expected = np.asarray(upright().resize((32, 32), Image.Resampling.BILINEAR))
    assert np.abs(found.astype(int) - expected).max() < 25, "JPEG keeps pixels roughly"


# -- kinds of images --------------------------------------------------------------------------------------------------

BLACK, GREY, WHITE, RED = (0, 0, 0), (100, 100, 100), (255, 255, 255), (200, 0, 0)


def halves(mode: str, left: object, right: object, **info: object) -> Callable[[Path], object]:
    """Returns a writer of an image of two halves, each of one value."""

    def write(path: Path) -> None:
        image = Image.new(mode, (32, 32), left)  # type: ignore[arg-type]
        image.paste(right, (16, 0, 32, 32))  # type: ignore[arg-type]
        image.save(path, **info)  # type: ignore[arg-type]

    return write


def palette(colours: list[tuple[int, int, int]], **info: object) -> Callable[[Path], object]:
    """Returns a writer of an image of two halves, of a palette's first two colours."""

    def write(path: Path) -> None:
        image = Image.new("P", (32, 32), 0)
        image.putpalette([value for colour in colours for value in colour])
        image.paste(1, (16, 0, 32, 32))
        image.save(path, **info)  # type: ignore[arg-type]

    return write


def frames(first: int, second: int, **how: object) -> Callable[[Path], object]:
    """Returns a writer of a file of several pictures, each of one grey."""

    def write(path: Path) -> None:
        pictures = [Image.new("L", (32, 32), value) for value in (first, second)]
        pictures[0].save(path, save_all=True, append_images=pictures[1:], **how)  # type: ignore[arg-type]

    return write


KINDS: dict[str, tuple[str, Callable[[Path], object], bool, tuple[int, ...], tuple[int, ...]]] = {
    # name: (file, writer, whether it is grey, left pixel and right pixel in colour)
    "black and white": ("a.png", halves("1", 0, 1), True, BLACK, WHITE),
    "black and white, black transparent": ("a.png", halves("1", 0, 1, transparency=0), True, WHITE, WHITE),
    "grey": ("a.png", halves("L", 100, 0), True, GREY, BLACK),
    "grey, one value transparent": ("a.png", halves("L", 7, 0, transparency=7), True, WHITE, BLACK),
    "grey with transparency": ("a.png", halves("LA", (0, 0), (0, 255)), True, WHITE, BLACK),
    "grey, half transparent": ("a.png", halves("LA", (0, 51), (0, 255)), True, (204, 204, 204), BLACK),
    "colour": ("a.png", halves("RGB", RED, GREY), False, RED, GREY),
    "colour, all of it grey": ("a.png", halves("RGB", BLACK, GREY), False, BLACK, GREY),
    "colour, one transparent": ("a.png", halves("RGB", BLACK, RED, transparency=BLACK), False, WHITE, RED),
    "ink on a transparent sheet": ("a.png", halves("RGBA", (0, 0, 0, 0), (0, 0, 0, 255)), False, WHITE, BLACK),
    "the same as WebP": (
        "a.webp",
        halves("RGBA", (0, 0, 0, 0), (0, 0, 0, 255), lossless=True),
        False,
        WHITE,
        BLACK,
    ),
    "palette of colours": ("a.png", palette([RED, GREY]), False, RED, GREY),
    "palette of greys": ("a.png", palette([GREY, BLACK]), True, GREY, BLACK),
    "palette with a colour not used": ("a.png", palette([GREY, BLACK, RED]), True, GREY, BLACK),
    "palette, one transparent": ("a.png", palette([BLACK, RED], transparency=0), False, WHITE, RED),
    "palette of greys, a colour transparent": ("a.png", palette([RED, BLACK], transparency=0), True, WHITE, BLACK),
    "palette with transparencies": ("a.png", palette([BLACK, BLACK], transparency=b"\x00\xff"), True, WHITE, BLACK),
    "GIF with a transparent colour": ("a.gif", palette([BLACK, RED], transparency=0), False, WHITE, RED),
    "BMP of a palette": ("a.bmp", palette([RED, GREY]), False, RED, GREY),
    "palette and transparency": ("a.tif", halves("PA", (0, 0), (0, 255)), True, WHITE, BLACK),
    "for printing": ("a.tif", halves("CMYK", (0, 0, 0, 0), (0, 0, 0, 255)), False, WHITE, BLACK),
    "animation": ("a.gif", frames(0, 200), True, BLACK, BLACK),
    "animation as PNG": ("a.png", frames(0, 200), True, BLACK, BLACK),
    "scan of two pages": ("a.tif", frames(100, 200), True, GREY, GREY),
    "extension in capitals": ("A.PNG", halves("L", 100, 0), True, GREY, BLACK),
    "extension of another kind": ("a.jpg", halves("L", 100, 0, format="PNG"), True, GREY, BLACK),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_images(kind: str, tmp_path: Path) -> None:
    file, write, grey, left, right = KINDS[kind]
    write(tmp_path / file)
    seen = looks(tmp_path / file)
    assert (seen.grey, seen.pixels) == (grey, 32 * 32)
    colour = small(tmp_path / file, grey=False)
    assert (colour.shape, colour.dtype) == ((32, 32, 3), np.uint8)
    assert (tuple(colour[5, 5]), tuple(colour[5, 27])) == (left, right)
    if grey:
        assert np.array_equal(small(tmp_path / file, grey=True), colour[..., 0])


def test_opaque_images_are_what_they_were(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(small(tmp_path / "a.png", grey=False), np.asarray(expected))


# -- what cannot be used ----------------------------------------------------------------------------------------------


def huge_png(width: int, height: int) -> bytes:
    """Returns the head of a PNG of that size: what is read of it before it is decoded."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def noise(path: Path) -> bytes:
    """Writes an image that does not compress, and returns its content."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60), np.uint8)).save(path)
    return path.read_bytes()


def cut_short(path: Path) -> None:
    content = noise(path)
    path.write_bytes(content[: len(content) // 2])


def flipped(path: Path) -> None:
    content = bytearray(noise(path))
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


LARGE = r"has more than [\d,]+ pixels, Pillow's limit: resize it"
KIND = "is not in a supported image format such as PNG or JPEG"
DAMAGED = r"cannot be read as an image \(\w+: .*\)"
FAULTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "large": ("a.png", lambda path: path.write_bytes(huge_png(14_000, 7_000)), LARGE),
    "larger": ("a.png", lambda path: path.write_bytes(huge_png(60_000, 60_000)), LARGE),
    "text": ("a.png", lambda path: path.write_text("no image"), KIND),
    "empty": ("a.png", lambda path: path.write_bytes(b""), "is empty"),
    "PNG cut short": ("a.png", cut_short, DAMAGED),
    "JPEG cut short": ("a.jpg", cut_short, DAMAGED),
    "GIF cut short": ("a.gif", cut_short, DAMAGED),
    "BMP cut short": ("a.bmp", cut_short, DAMAGED),
    "TIFF cut short": ("a.tif", cut_short, DAMAGED),
    "WebP cut short": ("a.webp", cut_short, DAMAGED),
    "PNG with a flipped byte": ("a.png", flipped, DAMAGED),
    "head alone": ("a.png", lambda path: path.write_bytes(huge_png(30, 30)), DAMAGED),
    "gone": ("a.png", lambda path: None, DAMAGED),
    "16 bits": ("a.png", lambda path: Image.fromarray(np.full((9, 9), 300, np.uint16)).save(path), "has more than 8"),
    "floats": ("a.tif", lambda path: Image.fromarray(np.full((9, 9), 300, np.float32)).save(path), "has more than 8"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_images_that_cannot_be_used(fault: str, tmp_path: Path) -> None:
    file, write, message = FAULTS[fault]
    write(tmp_path / file)
    with pytest.raises(ImageError, match=f"^{message}") as error:
        assert [looks(tmp_path / file), small(tmp_path / file, grey=True)]
    assert "\n" not in str(error.value)


def test_whatever_a_decoder_raises_is_about_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    for kind in (MemoryError, RecursionError, struct.error, KeyError, AttributeError):

        def fail(*_: object, kind: type[Exception] = kind, **__: object) -> None:
            raise kind("odd")

        monkeypatch.setattr(Image.Image, "convert", fail)
        with pytest.raises(ImageError, match="cannot be read as an image"):
            small(tmp_path / "a.png", grey=True)


def test_what_is_odd_but_can_be_read_is_not_warned_of(tmp_path: Path) -> None:
    content = b"II*\0 no EXIF"
    Image.new("RGB", (9, 9), RED).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + content, quality=100)
    assert small(tmp_path / "a.jpg", grey=False).shape == (32, 32, 3)
