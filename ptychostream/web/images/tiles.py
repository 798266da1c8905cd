"""Which parts of an image have changed, so that a browser gets those alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TILE = 64
"""Height and width of a tile, pixels. Tiles at the right and lower edge may be smaller."""


def tile_grid(shape: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of tiles that cover an image of `shape` [H, W]."""
    return -(-shape[0] // TILE), -(-shape[1] // TILE)


def changed_tiles(before: NDArray[np.uint16], after: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """[rows, columns] of tiles: whether a pixel differs between two images of one shape."""
    rows, columns = tile_grid(after.shape)
    differs = before != after
    by_row = np.logical_or.reduceat(differs, np.arange(rows) * TILE, axis=0)
    changed: NDArray[np.bool_] = np.logical_or.reduceat(by_row, np.arange(columns) * TILE, axis=1)
    return changed


def cut(codes: NDArray[np.uint16], tiles: Sequence[int]) -> NDArray[np.uint16]:
    """The pixels of these tiles, one tile after the other, each row by row. Tiles are numbered row by row."""
    columns = tile_grid(codes.shape)[1]
    pieces = []
    for tile in tiles:
        row, column = divmod(tile, columns)
        pieces.append(codes[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE].ravel())
    return np.concatenate(pieces) if pieces else np.empty(0, np.uint16)
