"""What `export` writes, put through the other packages themselves, where they are installed.

    python -m pytest tests/scans/layouts/test_with_other_packages.py

pty-chi 2.2.0, ptychodus 1.7.0 and cdtools 0.3.2 from the package index, beside ptychostream.
"""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ptychostream.imaging.geometry import object_pixel_m, wavelength_m
from ptychostream.scans.exports.cxi import write_cxi
from ptychostream.scans.exports.ptychi import write_pair
from ptychostream.scans.exports.ptychodus import write_product
from ptychostream.scans.reconstruction_file import read_reconstruction
from ptychostream.scans.scan import Reconstruction, Scan

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
SIZE, ENERGY, DETECTOR_PIXEL = 32, 10e3, 75e-6
PIXEL = object_pixel_m(ENERGY, 1.0, DETECTOR_PIXEL, SIZE)


@dataclass
class Case:
    folder: Path
    scan: Scan
    truth: Reconstruction
    floor: float
    """The misfit that comes from rounding the counts alone."""

    def misfit(self, model: NDArray[Any]) -> float:
        measured = np.sqrt(self.scan.counts.astype(np.float64))
        return float(np.abs(measured - np.sqrt(model)).sum() / measured.sum())


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """An F, an asymmetric probe, 99 positions on whole pixels; every file written."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    probe = (60 * np.exp(-(x**2 + y**2) / 30.0) * np.exp(1j * (x**2 + 0.5 * y**2 + 0.3 * x * y) / 25.0))[None]
    phase = np.zeros((90, 101))
    phase[20:70, 30:36] = phase[20:26, 30:60] = phase[42:48, 30:50] = 1
    image, origin = np.exp(1j * gaussian_filter(phase, 1.0)), (-1.3e-6, -0.7e-6)
    half, models, places = SIZE // 2, [], []
    for row in range(18, 72, 6):
        for column in range(20, 82, 6):
            r, c = row + random.integers(-1, 2), column + random.integers(-1, 2)
            wave = np.fft.fft2(np.fft.ifftshift(probe[0] * image[r - half : r + half, c - half : c + half])) / SIZE
            models.append(np.fft.fftshift(np.abs(wave) ** 2))
            places.append((origin[0] + c * PIXEL, origin[1] + r * PIXEL))
    model, positions = np.array(models), np.array(places)
    scan = Scan("F", np.rint(model).astype(np.uint32), positions, ENERGY, 1.0, DETECTOR_PIXEL)
    scan.bad_pixels, scan.probe = np.zeros((SIZE, SIZE), bool), probe.astype(np.complex64)
    truth = Reconstruction(
        image.astype(np.complex64),
        scan.probe,
        origin,
        PIXEL,
        positions,
        np.array([0.1]),
        np.ones(image.shape, np.float32),
    )
    found = Case(tmp_path_factory.mktemp("peers"), scan, truth, 0.0)
    found.floor = found.misfit(model)
    write_pair(found.folder / "F.hdf5", scan, truth)
    write_cxi(found.folder / "F.cxi", scan)
    for suffix in ("h5", "npz"):
        write_product(found.folder / f"product.{suffix}", scan, truth)
    return found


@pytest.mark.parametrize("suffix", ["h5", "npz"])
def test_a_product_in_ptychodus_own_forward_model(case: Case, suffix: str) -> None:
    pytest.importorskip("ptychodus")
    io = importlib.import_module("ptychodus.api.io")
    npz = importlib.import_module("ptychodus.plugins.npz_product_file").NPZProductFileIO()
    objects = importlib.import_module("ptychodus.api.object")
    path = case.folder / f"product.{suffix}"
    product = io.load_product(path) if suffix == "h5" else npz.read(path)
    simulate = importlib.import_module("ptychodus.api.simulate")
    modules = [
        importlib.import_module(f"{simulate.__name__}.{name}") for _, name, _ in pkgutil.iter_modules(simulate.__path__)
    ]
    generate = next(
        module.generate_diffraction_data for module in modules if hasattr(module, "generate_diffraction_data")
    )
    scale = (PIXEL / DETECTOR_PIXEL) ** 2  # its own factor
    seen = case.misfit(generate(product).get_patterns() / scale)
    assert seen < case.floor + 0.002
    geometry = product.object_.get_geometry()
    moved = objects.Object(
        array=product.object_.get_array(),
        pixel_geometry=product.object_.get_pixel_geometry(),
        center=objects.ObjectCenter(x_m=geometry.center_x_m + PIXEL / 2, y_m=geometry.center_y_m),
        layer_spacing_m=[],
    )
    assert case.misfit(generate(replace(product, object_=moved)).get_patterns() / scale) > 1.5 * seen
    back = case.folder / f"back.{suffix}"
    (io.save_product if suffix == "h5" else npz.write)(back, product)
    again = read_reconstruction(back)
    np.testing.assert_array_equal(again.object, case.truth.object)
    np.testing.assert_allclose(again.origin_m, case.truth.origin_m, rtol=1e-9)
    np.testing.assert_allclose(again.positions_m, case.scan.positions_m)


def test_cxi_in_ptychodus(case: Case) -> None:
    pytest.importorskip("ptychodus")
    data = importlib.import_module("ptychodus.plugins.cxi_file").CXIDiffractionFileReader().read(case.folder / "F.cxi")
    found = data.get_metadata()
    np.testing.assert_array_equal(np.concatenate([part.get_patterns() for part in data]), case.scan.counts)
    assert found.photon_energy_eV == pytest.approx(ENERGY)
    assert (found.detector_distance_m, found.detector_pixel_geometry.width_m) == (1.0, DETECTOR_PIXEL)
    assert not data.get_bad_pixels().any()


def test_cxi_in_cdtools(case: Case) -> None:
    pytest.importorskip("cdtools")
    tools = importlib.import_module("cdtools.tools.data")
    with h5py.File(case.folder / "F.cxi") as file:
        assert float(tools.get_wavelength(file)) == pytest.approx(wavelength_m(ENERGY), rel=1e-6)
        assert bool(np.asarray(tools.get_mask(file)).all())
        np.testing.assert_allclose(tools.get_ptycho_translations(file)[:, :2], -case.scan.positions_m)
        np.testing.assert_array_equal(np.asarray(tools.get_data(file)[0]), case.scan.counts)


def test_a_pair_in_ptychi_own_forward_model(case: Case) -> None:
    pytest.importorskip("ptychi", reason="pty-chi is not installed", exc_type=ImportError)
    torch = importlib.import_module("torch")
    api = importlib.import_module("ptychi.api")
    task_module = importlib.import_module("ptychi.api.task")
    with h5py.File(case.folder / "F_dp.hdf5") as file:
        patterns = file["dp"][()]
    with h5py.File(case.folder / "F_para.hdf5") as file:
        probe, image = file["probe"][()], file["object"][()]
        pixel = file["object"].attrs["pixel_width_m"]
        centre = file["object"].attrs["center_y_m"], file["object"].attrs["center_x_m"]
        places = file["probe_position_y_m"][()], file["probe_position_x_m"][()]
    options = api.EPIEOptions()
    options.data_options.data, options.data_options.wavelength_m = patterns, wavelength_m(ENERGY)
    options.object_options.initial_guess, options.object_options.pixel_size_m = image, pixel
    options.probe_options.initial_guess = probe
    origin = np.round(np.array(image.shape[-2:]) / 2) - 0.5  # where pty-chi puts the positions' zero
    rows, columns = (
        (place - middle) / pixel + (size - 1) / 2 - zero
        for place, middle, size, zero in zip(places, centre, image.shape[-2:], origin, strict=True)
    )
    options.probe_position_options.position_y_px, options.probe_position_options.position_x_px = rows, columns
    options.reconstructor_options.num_epochs, options.reconstructor_options.batch_size = 1, len(patterns)
    options.reconstructor_options.default_device = api.Devices.CPU
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        task = task_module.PtychographyTask(options)
        patches = task.object.extract_patches(task.probe_positions.tensor, (SIZE, SIZE))
        patches = patches if patches.ndim == 4 else patches[:, None]
        waves = torch.fft.fft2(task.probe.get_opr_mode(0)[None] * patches[:, :1])
        model = torch.fft.fftshift((waves.abs() ** 2).sum(1), dim=(-2, -1)).numpy()
    assert case.misfit(model) < case.floor + 0.002
    assert model.sum() / case.scan.counts.sum() == pytest.approx(1, abs=1e-3)
