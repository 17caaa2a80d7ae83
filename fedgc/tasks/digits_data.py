"""The 1797 real 8 x 8 images of handwritten digits that ship with scikit-learn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


class DigitsData(NamedTuple):
    """Digits for training and for testing.

    Attributes
    ----------
    train_x, test_x : ndarray of float32, shapes (1437, 64) and (360, 64)
        Images, each pixel between 0 and 1.
    train_y, test_y : ndarray of int, shapes (1437,) and (360,)
        Labels from 0 to 9.
    """

    train_x: Images
    test_x: Images
    train_y: Labels
    test_y: Labels


def digits_data() -> DigitsData:
    """Return the digits; the test set is a stratified fifth, always the same.

    Examples
    --------
    >>> data = digits_data()
    >>> data.train_x.shape, data.test_x.shape
    ((1437, 64), (360, 64))
    """
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split((images / 16.0).astype(np.float32), labels, test_size=0.2, stratify=labels, random_state=0)
    return DigitsData(*parts)
