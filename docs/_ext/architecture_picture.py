"""Draws docs/_static/architecture.svg: `python docs/_ext/architecture_picture.py`."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

TARGET = Path(__file__).resolve().parents[1] / "_static" / "architecture.svg"
WIDTH, HEIGHT = 1120, 790
INK, EDGE, AGENT, OTHER, LIBRARY = "#1f2933", "#0b6e99", "#8a5a00", "#616e7c", "#3d7a3d"


class Picture:
    """SVG elements, in the order in which they are drawn."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def box(self, x: int, y: int, w: int, h: int, colour: str, fill: str = "#ffffff", *, dashed: bool = False) -> None:
        """A rectangle with round corners."""
        dash = ' stroke-dasharray="6 4"' if dashed else ""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="7" fill="{fill}" stroke="{colour}"'
            f' stroke-width="1.6"{dash}/>'
        )

    def text(self, x: int, y: int, words: str, size: int = 14, colour: str = INK, **style: str) -> None:
        """One line of text; `anchor` is start, middle or end."""
        weight = ' font-weight="bold"' if style.get("bold") else ""
        family = ' font-family="monospace"' if style.get("mono") else ""
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="{style.get("anchor", "middle")}"'
            f"{weight}{family}>{escape(words)}</text>"
        )

    def labelled(self, x: int, y: int, w: int, h: int, colour: str, fill: str, *lines: str) -> None:
        """A box with a bold first line and plain ones below it, centred."""
        self.box(x, y, w, h, colour, fill)
        top = y + h // 2 - 9 * (len(lines) - 1) + 5
        for number, line in enumerate(lines):
            style = {"bold": "yes"} if number == 0 else {}
            self.text(x + w // 2, top + 18 * number, line, 14 if number == 0 else 12, **style)

    def arrow(self, points: list[tuple[int, int]], colour: str, label: str = "", at: tuple[int, int] = (0, 0)) -> None:
        """A line with a head at its end, and a label centred at `at`."""
        path = " ".join(f"{x},{y}" for x, y in points)
        marker = colour.removeprefix("#")
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" marker-end="url(#{marker})"/>'
        )
        for number, line in enumerate(label.split("\n") if label else ()):
            self.text(at[0], at[1] + 16 * number, line, 12, colour)

    def svg(self) -> str:
        """The whole file."""
        heads = "".join(
            f'<marker id="{colour[1:]}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"'
            f' orient="auto"><path d="M0,0 L10,5 L0,10 z" fill="{colour}"/></marker>'
            for colour in (INK, EDGE, AGENT, OTHER, LIBRARY)
        )
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="Helvetica, Arial,'
            f' sans-serif" role="img" aria-label="Processes and rooms of ptychostream">\n<defs>{heads}</defs>\n'
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n{body}\n</svg>\n'
        )


def draw() -> str:
    """The picture as SVG."""
    p = Picture()
    p.text(110, 34, "At the beamline", 15, OTHER, bold="yes")
    p.labelled(20, 50, 180, 70, OTHER, "#f3f5f7", "Detector IOC", "areaDetector,", "or sim/")
    p.labelled(20, 150, 180, 70, OTHER, "#f3f5f7", "Positions", "attributes, waveforms,", "route file, PVA stream")
    p.labelled(20, 250, 180, 60, OTHER, "#f3f5f7", "Scan sequencer", "starts and ends scans")

    p.text(560, 34, "Edge: ptychostream ioc", 15, EDGE, bold="yes")
    p.box(320, 48, 500, 282, EDGE, "#eef7fb")
    p.text(336, 72, "plugins/", 14, EDGE, anchor="start", bold="yes")
    steps = ("receive", "join", "batch", "infer", "stitch")
    for number, name in enumerate(steps):
        p.labelled(336 + 97 * number, 86, 76, 40, EDGE, "#ffffff", name)
        if number:
            p.arrow([(336 + 97 * number - 21, 106), (336 + 97 * number - 2, 106)], EDGE)
    p.text(496, 152, "a frame waits for its position; every loss is counted", 12, anchor="start")
    p.box(332, 166, 476, 1, EDGE, EDGE)
    p.text(336, 192, "ioc/", 14, EDGE, anchor="start", bold="yes")
    p.labelled(336, 204, 108, 56, EDGE, "#ffffff", "records", "CA and PVA")
    p.labelled(456, 204, 108, 56, EDGE, "#ffffff", "images", "NTNDArray")
    p.labelled(576, 204, 108, 56, EDGE, "#ffffff", "scan", "begin, end")
    p.labelled(696, 204, 108, 56, EDGE, "#ffffff", "model slot", "check, swap")
    p.text(336, 288, "db/ holds the templates of the records;  opi/ holds the screens", 12, anchor="start")
    p.text(336, 312, "ptychostream cluster: several consumers stitch, this process adds up", 12, anchor="start")

    p.text(1010, 34, "Clients", 15, OTHER, bold="yes")
    p.labelled(930, 86, 170, 70, OTHER, "#f3f5f7", "Phoebus, scripts", "pvget, p4p, caproto,", "archiver")
    p.labelled(930, 204, 170, 56, OTHER, "#f3f5f7", "Saved canvases", "HDF5")

    p.arrow([(200, 85), (264, 85), (264, 106), (334, 106)], OTHER, "NTNDArray\n(PVA)", (262, 60))
    p.arrow([(200, 185), (290, 185), (290, 136), (470, 136), (470, 128)], OTHER, "PVA, CA", (245, 178))
    p.arrow([(200, 280), (318, 280)], OTHER, "CA, PVA", (258, 272))
    p.arrow([(822, 120), (928, 120)], EDGE, "phase, figures\n(PVA, CA)", (876, 86))
    p.arrow([(822, 232), (928, 232)], EDGE)

    p.text(560, 588, "High-performance computing: ptychostream agent", 15, AGENT, bold="yes")
    p.box(320, 440, 500, 128, AGENT, "#fdf6e7")
    p.text(336, 464, "hpc_agent/", 14, AGENT, anchor="start", bold="yes")
    left = 336
    for name, width in (("collect", 76), ("reconstruct", 104), ("judge", 66), ("train", 66), ("push", 66)):
        p.labelled(left, 478, width, 40, AGENT, "#ffffff", name)
        if name != "push":
            p.arrow([(left + width, 498), (left + width + 22, 498)], AGENT)
        left += width + 24
    p.text(
        336,
        546,
        "a policy decides; a journal remembers; steps run as processes or as Slurm and PBS jobs",
        12,
        anchor="start",
    )
    p.labelled(20, 468, 180, 60, OTHER, "#f3f5f7", "Scan files", "HDF5, by the detector", "or ptychostream record")
    p.arrow([(20, 85), (8, 85), (8, 498), (18, 498)], OTHER)
    p.arrow([(200, 498), (334, 498)], OTHER)
    p.arrow([(770, 478), (770, 262)], AGENT, "model\n(ONNX, PVA call)", (706, 376))
    p.arrow([(350, 440), (350, 332)], AGENT, "SSIM, state, progress\n(CA)", (424, 376))
    p.arrow([(530, 332), (530, 438)], EDGE, "scan id, dose,\nswitches", (580, 376))
    p.arrow([(1015, 262), (1015, 540), (822, 540)], OTHER, "first guess of the reconstruction", (920, 558))

    p.text(560, 628, "Shared library: ptychostream/", 15, LIBRARY, bold="yes")
    p.box(20, 640, 1080, 130, LIBRARY, "#f0f7f0")
    rooms = (
        ("frames", "positions", "imaging", "model", "scans", "storage", "quality"),
        ("reconstruct", "pva", "rawpva", "recording", "processes", "cluster", "cli, demo, web"),
    )
    for row, names in enumerate(rooms):
        for column, name in enumerate(names):
            p.labelled(36 + 151 * column, 654 + 54 * row, 140, 42, LIBRARY, "#ffffff", name)
    return p.svg()


if __name__ == "__main__":
    TARGET.write_text(draw(), encoding="utf-8")
