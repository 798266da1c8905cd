"""Real-time streaming ptychography at an EPICS beamline.

The names that a script wants. Each is imported when it is first used, so that `import ptychostream` is quick and loads
neither EPICS nor torch.

Examples
--------
Stitch a scan file through a model, and compare the image with a reconstruction of the same scan:

>>> from ptychostream import compare, create_engine, load_model, open_scan, read_reconstruction, stitch_scan
>>> model = load_model("model.onnx")  # doctest: +SKIP
>>> engine = create_engine("Auto", model)  # doctest: +SKIP
>>> with open_scan("scan.h5") as scan:  # doctest: +SKIP
...     canvas = stitch_scan(scan, model.contract, engine.infer)
>>> compare(canvas.image(), read_reconstruction("epie.h5").phase_image()).ssim  # doctest: +SKIP
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it; to import typing takes longer than all the rest of this module
if TYPE_CHECKING:  # `_modules` reads these lines at run time
    from ptychostream.datasets.fetching import fetch as fetch_dataset
    from ptychostream.errors import (
        AgentError,
        ConfigError,
        DatasetError,
        DropCause,
        EngineError,
        FrameError,
        GeometryError,
        ModelError,
        PtychostreamError,
        ReconstructionError,
        ScanFileError,
        StreamError,
        TrainingError,
    )
    from ptychostream.imaging.geometry import object_pixel_m, wavelength_m
    from ptychostream.imaging.phase_image import PhaseImage
    from ptychostream.imaging.probe_weight import probe_weight
    from ptychostream.imaging.stitching import Canvas
    from ptychostream.model.contract import ModelContract
    from ptychostream.model.model_file import ModelFile, load_model
    from ptychostream.plugins.engines import create_engine
    from ptychostream.quality.offline_inference import stitch_scan
    from ptychostream.quality.quality import Quality, compare
    from ptychostream.reconstruct.options import ReconstructOptions
    from ptychostream.reconstruct.run import reconstruct as reconstruct_scan
    from ptychostream.scans.phase_file import read_phase_image, read_provenance, write_phase_image
    from ptychostream.scans.reconstruction_file import read_reconstruction, write_reconstruction
    from ptychostream.scans.scan import Reconstruction, Scan
    from ptychostream.scans.scan_files import open_scan
    from ptychostream.scans.scan_parts import ScanOptions
    from ptychostream.scans.scan_writer import write_scan

__version__ = "0.2.0"

__all__ = [
    "AgentError",
    "Canvas",
    "ConfigError",
    "DatasetError",
    "DropCause",
    "EngineError",
    "FrameError",
    "GeometryError",
    "ModelContract",
    "ModelError",
    "ModelFile",
    "PhaseImage",
    "PtychostreamError",
    "Quality",
    "ReconstructOptions",
    "Reconstruction",
    "ReconstructionError",
    "Scan",
    "ScanFileError",
    "ScanOptions",
    "StreamError",
    "TrainingError",
    "__version__",
    "compare",
    "create_engine",
    "fetch_dataset",
    "load_model",
    "object_pixel_m",
    "open_scan",
    "probe_weight",
    "read_phase_image",
    "read_provenance",
    "read_reconstruction",
    "reconstruct_scan",
    "stitch_scan",
    "wavelength_m",
    "write_phase_image",
    "write_reconstruction",
    "write_scan",
]


if not TYPE_CHECKING:  # a type checker then finds a name that is misspelt

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        module, original = _modules()[name]
        value = globals()[name] = getattr(import_module(module), original)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _modules() -> dict[str, tuple[str, str]]:
    """Module and name there of each public name, from the imports that type checkers read above."""
    import ast
    from pathlib import Path

    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    imports = [node for block in tree.body if isinstance(block, ast.If) for node in block.body]
    return {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in imports
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
