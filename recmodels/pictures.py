"""Figures as PNG bytes that are small enough for an event of a run."""

import io

from matplotlib.figure import Figure
from PIL import Image

COLOURS = 48
"""Charts have few colours; a palette makes them three times smaller than true colour."""


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as a PNG image; equal figures give equal bytes."""
    drawn, image = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110, metadata={"Software": None})
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(image, format="png", optimize=True)
    return image.getvalue()
