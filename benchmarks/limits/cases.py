"""The kinds of input: for each, the door, and a function that prepares it and gives the function that is measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ptychostream.benchmarks.limits import files, frames, models, network
from ptychostream.benchmarks.limits.models import Act

Prepare = Callable[[Path], Act]

CASES: dict[str, tuple[str, Prepare]] = {
    "1 MiB of noise as a model": ("LoadModel", models.noise),
    "a model of 300 MiB, the limit is 256": ("LoadModel", models.too_large),
    "a model with an operator that is not admitted": ("LoadModel", models.foreign_operator),
    "a model with weights that are not finite": ("LoadModel", models.not_finite),
    "a model whose golden pair does not hold": ("LoadModel", models.lying),
    "a model whose trial may take 0.2 s": ("LoadModel", models.too_slow),
    "a model whose trial may take 64 MiB": ("LoadModel", models.too_hungry),
    "100 MiB of noise pushed in parts": ("Model:Load", network.push_in_parts),
    "100 MiB of noise pushed at once": ("Model:Load", network.push_at_once),
    "a push that announces 2 GiB": ("Model:Load", network.push_too_large),
    "1000 pushes without a signature": ("Model:Load", network.push_unsigned),
    "a frame of 16384 × 16384 for a model of 128 × 128": ("frames", frames.wrong_size),
    "a frame whose lz4 payload is cut": ("frames", frames.cut_payload),
    "100 frames of 2048 × 2048 without positions, 384 MiB allowed": ("frames", frames.without_positions),
    "a route with a row of 20 MB": ("RouteFile", files.long_row),
    "a route of 300,000 rows, the last one text": ("RouteFile", files.text_in_route),
    "an npz with 5,000 members": ("scan file", files.many_members),
    "an npz with Python objects": ("scan file", files.objects),
    "an HDF5 file with 20,000 groups": ("scan file", files.many_groups),
    "an HDF5 file that announces 8 TiB of frames": ("scan file", files.huge_announced),
    "an HDF5 file that is cut in half": ("scan file", files.cut),
    "a reference that is no reconstruction": ("SSIMReference", files.no_reference),
    "a judgement without a lease": ("Agent:JudgedSHA", network.judged_by_nobody),
    "a judgement with a wrong signature": ("Agent:JudgedSHA", network.judged_wrongly),
    "a report of a consumer without the cluster's key": ("collector", network.unsigned_report),
    "a key file that others may read": ("start", network.open_key),
    "8 newcomers beside 200 silent connections": ("images", network.silent_connections),
}
