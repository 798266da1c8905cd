"""What image viewers make of channels: `python viewer_probe.py pydm|c2dataviewer CHANNEL …`.

Each channel is opened by the viewer's own image widget, as its user would, on a screen that nobody sees. It prints
{channel: {"shape": [H, W], "type": …, "sha256": …}} of the pixels that the widget was given to draw, rows first.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

WAIT_S = 30.0


def pydm(application: Any, channels: list[str]) -> dict[str, Any]:
    """By `PyDMImageView`: the array of its image item."""
    from pydm.widgets.image import PyDMImageView, ReadingOrder

    widgets = {}
    for channel in channels:
        widgets[channel] = widget = PyDMImageView(image_channel=f"pva://{channel}")
        widget.dimensionOrder = widget.DimensionOrder.WidthFirst
        widget.readingOrder = ReadingOrder.Clike
        widget.normalizeData = True
    application.establish_widget_connections(next(iter(widgets.values())))
    return until(application, lambda: {name: one.getImageItem().image for name, one in widgets.items()})


def c2dataviewer(application: Any, channels: list[str]) -> dict[str, Any]:
    """By `ImagePlotWidget` and `DataSource`: the image that it displayed last, which it has turned for Qt."""
    from c2dataviewer.model import DataSource
    from c2dataviewer.view.image_display import ImagePlotWidget

    widgets = {}
    for channel in channels:
        widgets[channel] = widget = ImagePlotWidget()
        widget.resize(300, 300)
        widget.set_datasource(DataSource(default=channel))
        widget.start()

    def shown() -> dict[str, Any]:
        last = {name: one.last_displayed_image for name, one in widgets.items()}
        return {name: one.image.T if one is not None else None for name, one in last.items()}

    found = until(application, shown)
    for widget in widgets.values():
        widget.stop()
    return found


def until(application: Any, shown: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The images when there is one of every channel, or those that there are in the end."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end and any(image is None for image in shown().values()):
        application.processEvents()
        time.sleep(0.01)
    return shown()


def main() -> None:
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    viewer, channels = sys.argv[1], sys.argv[2:]
    if viewer == "pydm":
        from pydm import PyDMApplication

        found = pydm(PyDMApplication(use_main_window=False), channels)
    else:
        import pvaccess  # noqa: F401 (before Qt)
        from pyqtgraph.Qt import QtWidgets

        found = c2dataviewer(QtWidgets.QApplication([]), channels)
    told = {}
    for name, image in found.items():
        if image is not None:
            pixels = np.ascontiguousarray(image)
            about = {"shape": list(pixels.shape), "type": str(pixels.dtype)}
            told[name] = {**about, "sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}
    print(json.dumps(told), flush=True)
    os._exit(0)  # Qt and the client libraries do not agree on who ends first


if __name__ == "__main__":
    main()
