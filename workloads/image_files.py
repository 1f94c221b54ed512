"""Reads image files of all kinds as 32x32 arrays, grey or colour, or says what is wrong with them.

Photographs are rotated according to their EXIF, transparent images get a white background, and of several pictures in a
file (an animation, a scan of many pages) the first is used.
"""

from __future__ import annotations

import contextlib
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from workloads.datasets import SIZE
from workloads.errors import InputError

_GREY = ("1", "L", "LA")
"""Pillow modes with one channel of at most 8 bits (and possibly transparency)."""
_PALETTE = ("P", "PA")
"""Pillow modes with a palette, whose colours may all be grey."""
_DEEP = ("I", "F")
"""First letters of Pillow modes with one channel of more than 8 bits, which Pillow would clip to white."""


class ImageError(InputError):
    """An image file cannot be used; the message continues a sentence that starts with the file's name."""


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What is known about an image before decoding."""

    grey: bool
    """Whether the file has no colours: one channel, or a palette of which only greys are used."""
    pixels: int


def looks(path: Path) -> Looks:
    """Reads a file's header, in about 0.1 ms; only images with a palette are decoded.

    Raises:
        ImageError: It is not a usable image.
    """
    with _opened(path) as image:
        _refuse_deep(image)
        grey = image.mode in _GREY or (image.mode in _PALETTE and _only_greys(image))
        return Looks(grey=grey, pixels=image.width * image.height)


def small(path: Path, *, grey: bool) -> NDArray[np.uint8]:
    """Returns an image as (32, 32), or as (32, 32, 3) in colour.

    Raises:
        ImageError: It is not a usable image.
    """
    with _opened(path) as image:
        return pixels(image, grey=grey)


def pixels(image: Image.Image, *, grey: bool, size: int = SIZE) -> NDArray[np.uint8]:
    """Returns the pixels (size, size), or (size, size, 3) in colour, of an opened image: upright and on white.

    Raises:
        ImageError: It has more than 8 bits per channel.
    """
    _refuse_deep(image)
    flat = _on_white(ImageOps.exif_transpose(image)).convert("L" if grey else "RGB")
    return np.asarray(flat.resize((size, size), Image.Resampling.BILINEAR))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Yields an opened image, not decoded yet; any error while it is open becomes an `ImageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd files that can be read all the same
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Given a name, Pillow 13 memory-maps TIFF files, and swaps the sides of rotated ones.
            with path.open("rb") as file, Image.open(file) as image:
                yield image
    except ImageError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ImageError(f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels, Pillow's limit: resize it") from None
    except UnidentifiedImageError:
        raise ImageError(
            "is not in a supported image format such as PNG or JPEG" if path.stat().st_size else "is empty"
        ) from None
    except Exception as error:  # noqa: BLE001 - decoders raise all kinds of errors about the file
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 120, placeholder=" ...")
        raise ImageError(f"cannot be read as an image ({reason})") from None


def _refuse_deep(image: Image.Image) -> None:
    if image.mode.startswith(_DEEP):
        raise ImageError("has more than 8 bits per channel: save it with 8")


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    ink = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", ink.size, "white"), ink)


def _only_greys(image: Image.Image) -> bool:
    pixels = np.asarray(_on_white(image).convert("RGB"))
    return bool((pixels == pixels[..., :1]).all())
