"""Pictures of a scalar field: a perceptual colour map, with relief.

Colours are interpolated in OKLab (B. Ottosson, 2020), where equal steps look equal, and shaded as
if the field were a landscape lit from the upper left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from PIL import Image
except ImportError as error:
    raise ImportError(
        "this example draws with Pillow, which is not installed: "
        "pip install 'proxystore_hpc[examples]', or pip install pillow"
    ) from error

PALETTES = {
    # From the low to the high end of the field.
    "lagoon": "#0b1026 #12305c #14647f #2f9c95 #8fcf9f #f2e3b3 #fffaf0",
    "ember": "#0d0a1f #2b1150 #6d1a6b #b8324f #ea6a35 #f9b351 #fff3c9",
    "porcelain": "#f7f1e3 #e6d3b3 #c5a880 #8f9a8b #4f7d86 #27506b #132743",
}
LEVELS, SHADES = 1024, 96
WRAP = 8
"""Cells of the other side that are joined on before enlarging, so that no seam shows."""

# Rows and columns as in Ottosson's definition.
_RGB_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LMS_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def to_oklab(colours: str) -> NDArray[np.float64]:
    """Colours such as "#0b1026 #ffffff" as rows of lightness, green-red and blue-yellow."""
    srgb = np.array([list(bytes.fromhex(colour[1:])) for colour in colours.split()]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    lab: NDArray[np.float64] = np.cbrt(linear @ _RGB_TO_LMS.T) @ _LMS_TO_LAB.T
    return lab


def to_srgb(lab: NDArray[np.float64]) -> NDArray[np.uint8]:
    """OKLab colours as bytes of red, green and blue; the last axis holds the components."""
    lms = (lab @ np.linalg.inv(_LMS_TO_LAB).T) ** 3
    linear = np.clip(lms @ np.linalg.inv(_RGB_TO_LMS).T, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * srgb), np.uint8)


def shaded_palette(name: str) -> NDArray[np.uint8]:
    """Colours by level of the field and by shade, of shape (LEVELS, SHADES, 3)."""
    points = to_oklab(PALETTES[name])
    places = np.linspace(0, 1, len(points))
    level = np.linspace(0, 1, LEVELS)
    flat = np.stack([np.interp(level, places, points[:, i]) for i in range(3)], axis=-1)
    light = np.linspace(-1, 1, SHADES)
    lab = np.repeat(flat[:, None, :], SHADES, axis=1)
    # Shadows keep their hue; lights go towards a warm white.
    shadow, glow = np.minimum(light, 0)[None, :], np.maximum(light, 0)[None, :]
    lab[..., 0] *= 1 + 0.75 * shadow
    lab[..., 1:] *= (1 + 0.35 * shadow)[..., None]
    lab += glow[..., None] ** 1.5 * 0.65 * (np.array([1.0, 0.003, 0.02]) - lab)
    return to_srgb(lab)


class Painter:
    """Makes pictures of periodic fields.

    Args:
        palette: Name of one of `PALETTES`.
        low: Value of the field that gets the first colour.
        high: Value that gets the last one.
        pixels: Least length of the longer side of a picture.
        relief: How steep the landscape looks; 0 for none.
    """

    def __init__(
        self, palette: str, low: float, high: float, pixels: int = 1024, relief: float = 2.0
    ) -> None:
        self._colours = shaded_palette(palette)
        self._low, self._span = low, high - low
        self._pixels = pixels
        self._relief = relief

    def paint(self, field: NDArray[np.float64]) -> Any:
        """A Pillow image of a field of shape (rows, columns)."""
        scale = max(1, -(-self._pixels // max(field.shape)))
        height = self._enlarged((field - self._low) / self._span, scale)
        level = np.clip(height * (LEVELS - 1), 0, LEVELS - 1).astype(np.int16)
        return Image.fromarray(self._colours[level, self._light(height, scale)])

    def save(self, field: NDArray[np.float64], path: Path) -> None:
        """Writes a picture; a file of this name that is being looked at is never seen half done."""
        unfinished = path.with_name(f".{path.name}.part")
        self.paint(field).save(unfinished, format="PNG", compress_level=4)
        unfinished.replace(path)

    def _enlarged(self, field: NDArray[np.float64], scale: int) -> NDArray[np.float32]:
        if scale == 1:
            return field.astype(np.float32)
        joined = np.pad(field, WRAP, mode="wrap").astype(np.float32)
        size = (joined.shape[1] * scale, joined.shape[0] * scale)
        large = np.asarray(Image.fromarray(joined).resize(size, Image.Resampling.BICUBIC))
        cut = WRAP * scale
        return large[cut:-cut, cut:-cut]

    def _light(self, height: NDArray[np.float32], scale: int) -> NDArray[np.int16]:
        slope = 2.2 * self._relief * scale
        joined = np.pad(height, 1, mode="wrap")
        east = slope * (joined[1:-1, 2:] - joined[1:-1, :-2])
        south = slope * (joined[2:, 1:-1] - joined[:-2, 1:-1])
        # A surface z = height has the normal (-east, -south, 1); flat ground is neutral.
        steepness = np.sqrt(east**2 + south**2 + 1)
        diffuse = (east + south) * 0.5 / steepness + 0.8 * (1 / steepness - 1)
        # What mirrors the light towards the eye.
        shine = np.maximum((0.35 * (east + south) + 0.87) / steepness, 0) ** 24 - 0.87**24
        light = np.clip(0.75 * diffuse + 0.35 * shine, -1, 1)
        return np.asarray((light + 1) * (SHADES - 1) / 2, np.int16)
