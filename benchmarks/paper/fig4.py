"""Figure 4: exposures ten times shorter than those of the training, their counts scaled up before the network."""

from __future__ import annotations

from matplotlib.figure import Figure

from ptychostream.benchmarks.paper import fig2, instrument
from ptychostream.benchmarks.paper.learning import base_model
from ptychostream.benchmarks.paper.plots import flat, on_truth, panels
from ptychostream.benchmarks.paper.result import Result, Row
from ptychostream.benchmarks.paper.work import TestScan, Work
from ptychostream.quality.quality import compare

TITLE = "Exposures ten times shorter than in training"
SHORTER = 10
"""0.5 ms for 5 ms."""


def short_scan(work: Work) -> TestScan:
    """The letters of figure 2, with a tenth of the photons."""
    settings = instrument.test_scan("letters", work.seed, frames=work.scale.frames, part=1 / SHORTER)
    return TestScan(work, "fig4/short", settings)


def make(work: Work) -> Result:
    """SSIM of the short exposures, with and without the scale, and of ePIE on them."""
    model, short, whole = base_model(work), short_scan(work), fig2.scans(work)["letters"]
    truth, epie, radius = short.truth(), whole.epie(work.scale.iterations), fig2.radius_m(work)
    images = {
        "scaled": short.stitched(model, SHORTER),
        "unscaled": short.stitched(model),
        "whole": whole.stitched(model),
        "epie": short.epie(work.scale.iterations),
    }
    against_epie = {kind: compare(image, epie, short.disk(epie, radius)).ssim for kind, image in images.items()}
    against_truth = {kind: compare(image, truth, short.disk(truth, radius)).ssim for kind, image in images.items()}
    rows = (
        Row(
            f"SSIM, counts × {SHORTER}, against ePIE of the whole exposures",
            "0.86",
            against_epie["scaled"],
            least=work.scale.lines.get("fig4"),
        ),
        Row("the same without the factor", "–", against_epie["unscaled"]),
        Row("SSIM of the whole exposures", "–", against_epie["whole"]),
        Row("SSIM of ePIE on the short exposures", "–", against_epie["epie"]),
        Row(f"SSIM, counts × {SHORTER}, against the truth", "–", against_truth["scaled"]),
    )
    return Result("fig4", TITLE, rows, {"against_epie": against_epie, "against_truth": against_truth})


def draw(work: Work, result: Result) -> Figure:
    """The four images side by side."""
    model, short, whole = base_model(work), short_scan(work), fig2.scans(work)["letters"]
    truth = short.truth()
    area, scores = short.disk(truth, fig2.radius_m(work)), result.data["against_truth"]
    images = {
        "network, whole exposures": (whole.stitched(model), "whole"),
        f"network, a tenth, counts × {SHORTER}": (short.stitched(model, SHORTER), "scaled"),
        "network, a tenth, as counted": (short.stitched(model), "unscaled"),
        "ePIE, a tenth": (short.epie(work.scale.iterations), "epie"),
    }
    figure = Figure(figsize=(16, 4.3), layout="constrained")
    titles = [f"{name}\nSSIM against the truth {scores[kind]:.3f}" for name, (_, kind) in images.items()]
    shown = [on_truth(image, truth, area) for image, _ in images.values()]
    panels(list(figure.subplots(1, len(images))), shown, titles, flat(truth, area))
    return figure
