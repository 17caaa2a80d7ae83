"""A network for small images after MobileNetV3: inverted residuals, squeeze-and-excite, hard-swish."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import nn


class _Block(NamedTuple):
    """What a row of the paper's table says; `inside` and `out` are numbers of channels."""

    kernel: int
    inside: int
    out: int
    excite: bool
    swish: bool
    stride: int


#: Blocks of MobileNetV3-Large.
_BLOCKS = (
    _Block(3, 16, 16, False, False, 1),
    _Block(3, 64, 24, False, False, 2),
    _Block(3, 72, 24, False, False, 1),
    _Block(5, 72, 40, True, False, 2),
    _Block(5, 120, 40, True, False, 1),
    _Block(5, 120, 40, True, False, 1),
    _Block(3, 240, 80, False, True, 2),
    _Block(3, 200, 80, False, True, 1),
    _Block(3, 184, 80, False, True, 1),
    _Block(3, 184, 80, False, True, 1),
    _Block(3, 480, 112, True, True, 1),
    _Block(3, 672, 112, True, True, 1),
    _Block(5, 672, 160, True, True, 2),
    _Block(5, 960, 160, True, True, 1),
    _Block(5, 960, 160, True, True, 1),
)


class MobileNetwork(nn.Module):
    """MobileNetV3-Large for small images, with group normalisation.

    Batch normalisation would make a shard's gradient depend on what else is in the batch, and its running statistics
    are no gradients at all. The first convolution has stride 1, since images are small, and the layer before the last
    is wider than in the paper (2048 against 1280), which makes up for the classes that are fewer.

    Parameters
    ----------
    width : float
        Factor for all numbers of channels; with 1 there are 5.0 million parameters.
    n_classes : int
        Number of outputs.

    References
    ----------
    A. Howard et al., "Searching for MobileNetV3", ICCV 2019, arXiv 1905.02244, table 1.
    """

    def __init__(self, width: float, n_classes: int) -> None:
        super().__init__()
        first, inside, before = channels(16 * width), channels(960 * width), channels(2048 * width)
        outs = [first, *(channels(block.out * width) for block in _BLOCKS)]
        blocks = [
            _InvertedResidual(block, come, channels(block.inside * width), out)
            for block, (come, out) in zip(_BLOCKS, pairwise(outs), strict=True)
        ]
        self.layers = nn.Sequential(
            *_convolution(3, first, 3), nn.Hardswish(), *blocks, *_convolution(outs[-1], inside, 1), nn.Hardswish()
        )
        self.classify = nn.Sequential(nn.Linear(inside, before), nn.Hardswish(), nn.Linear(before, n_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (n_images, n_classes), of images of shape (n_images, 3, height, width)."""
        logits: torch.Tensor = self.classify(self.layers(images).mean((2, 3)))
        return logits


class _InvertedResidual(nn.Module):
    """Widen, convolve each channel by itself, weigh channels, narrow; with a way around where shapes allow it."""

    def __init__(self, block: _Block, come: int, middle: int, out: int) -> None:
        super().__init__()
        activation = nn.Hardswish if block.swish else nn.ReLU
        widen = [*_convolution(come, middle, 1), activation()] if middle != come else []
        self.layers = nn.Sequential(
            *widen,
            *_convolution(middle, middle, block.kernel, stride=block.stride, groups=middle),
            activation(),
            *([_SqueezeExcite(middle)] if block.excite else []),
            *_convolution(middle, out, 1),
        )
        self._around = block.stride == 1 and come == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return x + y if self._around else y


class _SqueezeExcite(nn.Module):
    """Weigh each channel by what all of them are on average."""

    def __init__(self, come: int) -> None:
        super().__init__()
        less = channels(come / 4)
        self.weigh = nn.Sequential(nn.Linear(come, less), nn.ReLU(), nn.Linear(less, come), nn.Hardsigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights: torch.Tensor = self.weigh(x.mean((2, 3)))
        return x * weights[:, :, None, None]


def _convolution(come: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    padding = kernel // 2
    convolution = nn.Conv2d(come, out, kernel, stride=stride, padding=padding, groups=groups, bias=False)
    return [convolution, nn.GroupNorm(out // 8, out)]


def channels(wanted: float) -> int:
    """Return the multiple of 8, at least 8, that is nearest to a number of channels and above nine tenths of it.

    Examples
    --------
    >>> channels(20.0), channels(18.0), channels(1.0)
    (24, 24, 8)
    """
    nearest = max(8, int(wanted + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * wanted else nearest
