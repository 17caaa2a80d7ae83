"""Images that are drawn: coloured shapes and textures with noise, of ten classes, from a Generator alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: What is seen, in the order of the labels.
CLASSES = (
    "disc",
    "ring",
    "square",
    "frame",
    "triangle",
    "cross",
    "horizontal stripes",
    "vertical stripes",
    "diagonal stripes",
    "checkerboard",
)

#: Standard deviation of each channel's noise, of colours that lie between 0 and 1.
_NOISE = 0.15


def drawn_images(n_images: int, size: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw images of ten classes, each with colours, place, scale and noise of its own.

    Parameters
    ----------
    n_images : int
        Number of images; the classes take turns, so that their numbers differ by at most one.
    size : int
        Height and width in pixels.
    rng : numpy.random.Generator
        Source of all that is random.

    Returns
    -------
    images : ndarray of float32, shape (n_images, 3, size, size)
        Colours around zero: what is drawn lies between -0.5 and 0.5, before the noise.
    labels : ndarray of int, shape (n_images,)
        Positions in :data:`CLASSES`.

    Examples
    --------
    >>> images, labels = drawn_images(20, 32, np.random.default_rng(0))
    >>> images.shape, np.bincount(labels).tolist()
    ((20, 3, 32, 32), [2, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    """
    labels = np.arange(n_images, dtype=np.int64) % len(CLASSES)
    images = np.empty((n_images, 3, size, size), dtype=np.float32)
    for image, label in zip(images, labels, strict=True):
        mask = _mask(CLASSES[label], size, rng)
        ground, ink = rng.random(3), rng.random(3)
        while np.abs(ground - ink).max() < 0.4:  # colours that are too alike would hide what is drawn
            ink = rng.random(3)
        image[:] = np.where(mask, ink[:, None, None], ground[:, None, None]) - 0.5
        image[:] += rng.normal(0.0, _NOISE, image.shape)
    return images, labels


def _mask(kind: str, size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return where the ink is."""
    rows, columns = np.mgrid[0:size, 0:size] / (size - 1) - 0.5
    middle, radius = rng.uniform(-0.15, 0.15, 2), rng.uniform(0.2, 0.35)
    y, x = (rows - middle[0]) / radius, (columns - middle[1]) / radius
    far, square = np.hypot(x, y), np.maximum(np.abs(x), np.abs(y))
    shapes: dict[str, NDArray[np.bool_]] = {
        "disc": far < 1.0,
        "ring": (far < 1.0) & (far > 0.6),
        "square": square < 0.9,
        "frame": (square < 0.9) & (square > 0.55),
        "triangle": (y < 0.8) & (y > 2.0 * np.abs(x) - 1.0),
        "cross": (square < 1.0) & (np.minimum(np.abs(x), np.abs(y)) < 0.3),
    }
    if kind in shapes:
        return shapes[kind]
    waves, phase = rng.uniform(3.0, 5.0), rng.uniform(0.0, 1.0, 2)
    y, x = np.sin(2 * np.pi * (waves * rows + phase[0])), np.sin(2 * np.pi * (waves * columns + phase[1]))
    if kind == "diagonal stripes":
        along = (rows + rng.choice([-1.0, 1.0]) * columns) / np.sqrt(2)
        ink = np.sin(2 * np.pi * (waves * along + phase[0])) > 0.0
    else:
        ink = {"horizontal stripes": y, "vertical stripes": x, "checkerboard": x * y}[kind] > 0.0
    return np.asarray(ink, dtype=np.bool_)
