"""What a reconstruction came to, in words: R beside its limits, the beam, the pixel, what was found and chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

OFF_CENTRE = 0.04
"""Part of a frame's width by which the mean pattern may lie off the middle without a remark."""

if TYPE_CHECKING:
    from ptychostream.scans.scan import Reconstruction


def in_words(reconstruction: Reconstruction) -> list[str]:
    """R beside the R of an empty object and of counting noise; beam, pixel, step and defocus, for people."""
    from ptychostream.imaging.geometry import wavelength_m
    from ptychostream.reconstruct.soundness import explained
    from ptychostream.statements.radiation import beam_in_words
    from ptychostream.statements.units import length_in_words

    made = reconstruction.provenance
    empty, noise = made["empty_r_factor"], made["noise_r_factor"]
    lines = [
        f"an empty object has R {empty:.4f}, counting noise alone {noise:.4f}: "
        f"{explained(reconstruction.r_factor, empty):.2%} of the patterns' variation is explained, "
        f"{max(explained(noise, empty), 0.0):.2%} lies beyond the noise"
    ]
    beam = beam_in_words(made["energy_ev"], made["radiation"])
    wavelength = length_in_words(wavelength_m(made["energy_ev"], made["radiation"]))
    step, counts = made["options"]["object_step"], made["counts_a_pixel"]
    lines.append(f"{beam}, wavelength {wavelength}, object pixel {length_in_words(reconstruction.pixel_m)}")
    lines.append(f"{counts:.3g} counts a pixel, object step {step:.2g}")
    if made["defocus_m"] is not None:
        lines[-1] += f", defocus of the first probe {length_in_words(made['defocus_m'], 3)}"
    row, column = made["centre_off_px"]
    side = reconstruction.probe.shape[-1]
    if max(abs(row), abs(column)) > OFF_CENTRE * side:
        lines.append(
            f"the middle of the mean pattern lies {row:+.1f} rows and {column:+.1f} columns off the frames' middle: "
            "if the beam is there, crop the frames around it (--crop)"
        )
    return lines
