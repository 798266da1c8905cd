"""The simulated experiment that the results share: training scans with labels, and the scans of the test."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychostream.benchmarks.paper import instrument
from ptychostream.benchmarks.paper.run_folder import RunFolder
from ptychostream.benchmarks.paper.scale import Scale
from ptychostream.hpc_agent.corpus.training_data import Source
from ptychostream.hpc_agent.reconstruct.choice import create_engine
from ptychostream.hpc_agent.training.checkpoint import checkpoint_path
from ptychostream.hpc_agent.training.offline_network import load_network
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.model.model_file import load_model
from ptychostream.quality.offline_inference import stitch_scan
from ptychostream.reconstruct.options import ReconstructOptions
from ptychostream.reconstruct.run import reconstruct
from ptychostream.refine.refiner import Refiner
from ptychostream.scans.phase_file import read_phase_image, write_phase_image
from ptychostream.scans.reconstruction_file import read_reconstruction, write_reconstruction
from ptychostream.scans.scan import Reconstruction, Scan
from ptychostream.scans.scan_files import open_scan
from ptychostream.scans.scan_writer import write_scan
from ptychostream.sim.diffraction import Simulation, simulate_scan


@dataclass(frozen=True)
class Work:
    """A run: its folder, its size, and where it computes.

    Attributes
    ----------
    say
        Called with a line for people when a piece is begun.
    """

    folder: RunFolder
    scale: Scale
    seed: int
    device: str
    say: Callable[[str], None]

    def training_sources(self, stack: ExitStack, count: int) -> list[Source]:
        """The first `count` training scans and their labels by ePIE. The scans' files stay open until `stack` ends."""
        sources = []
        for index in range(count):
            settings = instrument.training_scan(index, self.scale.frames, self.seed)
            path = self._scan(f"training/scan-{index:03d}.h5", settings)
            scan = stack.enter_context(open_scan(path))
            label = self.folder.file(f"training/epie-{index:03d}.h5", partial(self._label, scan))
            sources.append(Source(scan, read_reconstruction(label)))
        return sources

    def _label(self, scan: Scan, path: Path) -> None:
        write_reconstruction(path, self.reconstructed(scan, self.scale.label_iterations))

    def _scan(self, name: str, settings: Simulation) -> Path:
        def write(path: Path) -> None:
            self.say(f"simulating {settings.frames} frames: {name}")
            write_scan(path, simulate_scan(settings)[0])

        return self.folder.file(name, write)

    def reconstructed(self, scan: Scan, iterations: int) -> Reconstruction:
        """ePIE of a scan from nothing but its own probe, the true one."""
        self.say(f"ePIE of {scan.scan_id}, {len(scan)} frames, {iterations} iterations")
        options = ReconstructOptions(iterations=iterations, device=self.device, seed=self.seed)
        return reconstruct(scan, options, create_engine=create_engine)


class TestScan:
    """A scan that no network has been trained on, and its images. Images are pieces of the run; the scan is made anew.

    Parameters
    ----------
    name
        Of the scan's folder in the run.
    settings
        The simulation.
    """

    __test__ = False  # no test, whatever pytest thinks of its name

    def __init__(self, work: Work, name: str, settings: Simulation) -> None:
        self._work, self._name, self._settings = work, name, settings
        self._made: tuple[Scan, Reconstruction] | None = None

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self._settings.frames

    def scan(self) -> Scan:
        """The scan, with the true probe as its first guess."""
        return self._simulated()[0]

    def truth(self) -> PhaseImage:
        """The sample's own phase."""
        return self._image("truth", lambda: self._simulated()[1].phase_image())

    def epie(self, iterations: int) -> PhaseImage:
        """ePIE from nothing."""
        return self._image("epie", lambda: self._work.reconstructed(self.scan(), iterations).phase_image())

    def stitched(self, model: Path, dose_scale: float = 1.0) -> PhaseImage:
        """The network's patches, stitched as the edge does."""

        def make() -> PhaseImage:
            self._work.say(f"{model.stem} on {self._name}, {self.frames} frames")
            loaded = load_model(model)
            infer = load_network(loaded, checkpoint_path(model), self._work.device)
            return stitch_scan(self.scan(), loaded.contract, infer, dose_scale=dose_scale).image()

        return self._image(f"{model.stem}-x{dose_scale:g}", make)

    def refined(self, model: Path, passes: int) -> PhaseImage:
        """The network's phase, refined as the IOC does it beside the network, from the scan's own probe."""

        def make() -> PhaseImage:
            scan, phase = self.scan(), self.stitched(model)
            assert scan.probe is not None
            self._work.say(f"refining {self._name}, {self.frames} frames, {passes} passes")
            refiner = Refiner(scan.probe, phase.pixel_m, seed=self._work.seed)
            good = np.ones(scan.counts.shape[1:], bool) if scan.bad_pixels is None else ~scan.bad_pixels
            for index, (x_m, y_m) in enumerate(scan.positions_m):
                refiner.add(scan.counts[index], good, (float(x_m), float(y_m)))
            refiner.guide(phase)
            refiner.passes(passes)
            return refiner.image()

        return self._image(f"{model.stem}-refined-{passes}", make)

    def disk(self, image: PhaseImage, radius_m: float) -> NDArray[np.bool_]:
        """[H, W] True at the pixels of an image of this scan within a radius of the scan's middle."""
        rows, columns = np.ogrid[: image.phase.shape[0], : image.phase.shape[1]]
        x_m, y_m = (origin + image.pixel_m * at for origin, at in zip(image.origin_m, (columns, rows), strict=True))
        middle_x, middle_y = self._settings.centre_m
        area: NDArray[np.bool_] = np.hypot(x_m - middle_x, y_m - middle_y) <= radius_m
        return area

    def _simulated(self) -> tuple[Scan, Reconstruction]:
        if self._made is None:
            self._work.say(f"simulating {self.frames} frames: {self._name}")
            self._made = simulate_scan(self._settings)
        return self._made

    def _image(self, kind: str, make: Callable[[], PhaseImage]) -> PhaseImage:
        name = f"images/{self._name}/{kind}.h5"
        return read_phase_image(self._work.folder.file(name, lambda path: write_phase_image(path, make())))
