"""Images as HDF5 files for NeXus viewers, made in memory."""

from __future__ import annotations

import io

import h5py
import numpy as np

from ptychostream.web.images.picture import Picture


def hdf5_of(picture: Picture, channel: str) -> bytes:
    """A file with `/entry/data` (NXdata): the image as it was served; axes `y` and `x` in metres if they are told.

    Its attributes are those of the NTNDArray. Pixels without a measurement hold `FillValue`.
    """
    written = io.BytesIO()
    with h5py.File(written, "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": "data"})
        data = entry.create_group("data")
        data.attrs.update({"NX_class": "NXdata", "signal": "image"})
        image = data.create_dataset("image", data=picture.array)
        image.attrs.update({"units": picture.units, "channel": channel, "number": picture.number})
        image.attrs["time"] = picture.time_s
        for name, value in picture.attributes.items():
            image.attrs[name] = value
        told = [picture.attributes.get(name) for name in ("OriginX", "OriginY", "PixelSize")]
        if all(isinstance(one, float) for one in told) and told[2]:
            x, y, pixel = (float(one) for one in told if one is not None)
            data.attrs["axes"] = ["y", "x"]
            for axis, (name, origin) in enumerate((("y", y), ("x", x))):
                values = origin + pixel * np.arange(picture.array.shape[axis])
                data.create_dataset(name, data=values).attrs["units"] = "m"
    return written.getvalue()
