"""Image files as cameras and people make them: upright, on white, in grey or colour, at 32x32; or what is wrong.

Photographs are turned upright as their EXIF says, transparent images are laid on white, and of several pictures in a
file (an animation, a scan of many pages) the first is taken.
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
"""Pillow's modes of one channel of 8 bits at most (and perhaps transparency)."""
_PALETTE = ("P", "PA")
"""Pillow's modes of numbered colours, which may all be grey."""
_DEEP = ("I", "F")
"""What Pillow's modes of one channel of more than 8 bits begin with: it would cut them off at white."""


class ImageError(InputError):
    """An image file cannot be used; the message goes on from the file's name."""


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What is known of an image before it is decoded."""

    grey: bool
    """Whether the file keeps no colours: one channel, or a palette of which only greys are used."""
    pixels: int


def looks(path: Path) -> Looks:
    """Returns what a file's header says, in about 0.1 ms; only images with a palette are decoded for it.

    Raises:
        ImageError: It is not an image that can be used.
    """
    with _opened(path) as image:
        _refuse_deep(image)
        grey = image.mode in _GREY or (image.mode in _PALETTE and _only_greys(image))
        return Looks(grey=grey, pixels=image.width * image.height)


def small(path: Path, *, grey: bool) -> NDArray[np.uint8]:
    """Returns an image of (32, 32), or (32, 32, 3) in colour.

    Raises:
        ImageError: It is not an image that can be used.
    """
    with _opened(path) as image:
        return pixels(image, grey=grey)


def pixels(image: Image.Image, *, grey: bool, size: int = SIZE) -> NDArray[np.uint8]:
    """Returns the pixels (size, size), or (size, size, 3) in colour, of an opened image: upright and on white.

    Raises:
        ImageError: It has more than 8 bits for each channel.
    """
    _refuse_deep(image)
    flat = _on_white(ImageOps.exif_transpose(image)).convert("L" if grey else "RGB")
    return np.asarray(flat.resize((size, size), Image.Resampling.BILINEAR))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Yields an image not decoded yet; whatever goes wrong with it from then on is an `ImageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd in a file, but can be read
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Given a name, Pillow 13 maps TIFF files to memory, and mixes up the sides of those that lie turned.
            with path.open("rb") as file, Image.open(file) as image:
                yield image
    except ImageError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ImageError(f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels, Pillow's limit: make it smaller") from None
    except UnidentifiedImageError:
        raise ImageError(
            "is not an image of a kind that can be read, such as PNG or JPEG" if path.stat().st_size else "is empty"
        ) from None
    except Exception as error:  # noqa: BLE001 - decoders raise all there is, and it is about this file alone
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 120, placeholder=" ...")
        raise ImageError(f"is not an image that can be read ({reason})") from None


def _refuse_deep(image: Image.Image) -> None:
    if image.mode.startswith(_DEEP):
        raise ImageError("has more than 8 bits for each channel: save it with 8")


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    ink = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", ink.size, "white"), ink)


def _only_greys(image: Image.Image) -> bool:
    pixels = np.asarray(_on_white(image).convert("RGB"))
    return bool((pixels == pixels[..., :1]).all())
