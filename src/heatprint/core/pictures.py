"""Any picture as the square RGB image a classifier sees; nothing here imports torch."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps


def square(image: Image.Image, size: int) -> Image.Image:
    """An opened picture upright, on white, RGB, `size` pixels to a side: bilinear, antialiased, aspect not kept.

    Raises:
        OSError, ValueError, SyntaxError, ...: What Pillow raises on damaged files, by format and place of the damage.
    """
    upright = ImageOps.exif_transpose(_rgb(image))
    return upright.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=None)


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB: 16-bit greys scaled, transparency laid on white; EXIF kept for the rotation."""
    exif = image.getexif()
    if image.mode.startswith(("I;16", "I", "F")):
        wide = np.asarray(image, dtype=np.float64)
        top = 65535.0 if wide.max(initial=0) > 255 else 255.0
        rgb = Image.fromarray((wide.clip(0, top) * (255 / top)).round().astype(np.uint8)).convert("RGB")
    elif "A" in image.getbands() or "transparency" in image.info:
        layers = image.convert("RGBA")
        rgb = Image.new("RGB", image.size, "white")
        rgb.paste(layers, mask=layers.getchannel("A"))
    else:
        rgb = image.convert("RGB")
    if exif:
        rgb.info["exif"] = exif.tobytes()
    return rgb
