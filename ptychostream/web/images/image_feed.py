"""The newest image of one channel, and what of it has changed since an earlier one."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.web.images.levels import Levels, codes_of
from ptychostream.web.images.messages import image_message, pack
from ptychostream.web.images.picture import Picture
from ptychostream.web.images.tiles import TILE, changed_tiles, cut, tile_grid

LARGEST_SENT = 1 << 22
"""Pixels of the largest image that a browser gets; of a larger one it gets every second pixel, or every third, …"""
_KEPT_MESSAGES = 4


class ImageFeed:
    """The newest image of a channel. Any thread may call its methods.

    Parameters
    ----------
    ioc, name
        Prefix and name of the channel; they are told to the browser.

    Attributes
    ----------
    version
        Counts the images; 0 before the first.
    picture
        The newest image, complete.
    """

    def __init__(self, ioc: str, name: str) -> None:
        self.ioc = ioc
        self.name = name
        self.version = 0
        self.picture: Picture | None = None
        self._lock = threading.Lock()
        self._packing = threading.Lock()
        self._codes: NDArray[np.uint16] = np.empty((0, 0), np.uint16)
        self._changed: NDArray[np.int64] = np.empty((0, 0), np.int64)  # version of each tile's last change
        self._levels: Levels | None = None
        self._range = (0.0, 0.0)
        self._reduced = 1
        self._seen_s = 0.0
        self._messages: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def take(self, picture: Picture) -> None:
        """Make `picture` the newest image."""
        reduced = int(np.ceil(np.sqrt(max(1.0, picture.array.size / LARGEST_SENT))))
        codes, levels, extremes = codes_of(picture.array[::reduced, ::reduced], picture.fill, self._levels)
        with self._lock:
            version = self.version + 1
            if codes.shape != self._codes.shape or levels != self._levels:
                self._changed = np.full(tile_grid(codes.shape), version, np.int64)
            else:
                self._changed[changed_tiles(self._codes, codes)] = version
            self._codes, self._levels, self._range, self._reduced = codes, levels, extremes, reduced
            self.picture, self._seen_s = picture, time.time()
            self.version = version

    def message(self, base: int) -> tuple[bytes, int]:
        """The message that brings a browser from version `base` to the newest, and the newest version.

        Base 0, or a base that this feed never had, gives the complete image. Messages are kept for the next browser.
        """
        with self._packing:
            with self._lock:
                if self.picture is None:
                    return b"", 0
                version = self.version
                base = base if 0 < base <= version else 0
                kept = self._messages.get((base, version))
                if kept is not None:
                    return kept, version
                tiles = [int(tile) for tile in np.flatnonzero(self._changed.ravel() > base)]
                pixels = cut(self._codes, tiles)
                header = self._header(base, version, tiles)
            made = image_message(header, pack(pixels))
            self._messages[base, version] = made
            while len(self._messages) > _KEPT_MESSAGES:
                self._messages.popitem(last=False)
            return made, version

    def _header(self, base: int, version: int, tiles: list[int]) -> dict[str, Any]:
        picture, levels = self.picture, self._levels
        assert picture is not None
        assert levels is not None
        everything = len(tiles) == self._changed.size
        return {
            "ioc": self.ioc,
            "image": self.name,
            "base": base,
            "version": version,
            "number": picture.number,
            "height": self._codes.shape[0],
            "width": self._codes.shape[1],
            "reduced": self._reduced,
            "offset": levels.offset,
            "step": levels.step,
            "low": self._range[0],
            "high": self._range[1],
            "tile": TILE,
            "tiles": None if everything else tiles,
            "time": picture.time_s,
            "seen": self._seen_s,
            "units": picture.units,
            "attributes": dict(picture.attributes),
        }
