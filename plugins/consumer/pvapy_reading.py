"""What the updates of an NTNDArray channel hold, read through pvapy, as its streaming framework delivers them."""

from __future__ import annotations

import json
from collections.abc import Collection

import numpy as np
import pvaccess as pva

from ptychostream.frames.stream_watch import region_of
from ptychostream.pva.reading import (
    Packed,
    RawArray,
    Scalar,
    ShapeFault,
    any_shape,
    counts_of,
    not_an_ntndarray,
    posix_time,
)


def decode(pv_object: pva.PvObject, attributes: Collection[str] = (), fault: ShapeFault = any_shape) -> RawArray | None:
    """As `ptychostream.pva.reading.decode_value`, for an update that came through pvapy."""
    # The typed getters cost a quarter of `pv_object[...]`, and this runs thousands of times a second.
    try:
        raw_id = pv_object.getInt("uniqueId")
        dimensions = pv_object.getStructureArray("dimension")
        field = pv_object.getSelectedUnionFieldName("value")
        if not dimensions and not field:
            return None
        payload = pv_object.getUnion("value").getScalarArray(field) if field else None
        packed = None
        if codec := pv_object.getString("codec.name"):
            held, kinds = pv_object["codec.parameters"]
            code, kind = held.get("value"), kinds.get("value")
            if isinstance(code, str) and len(code) == 1:
                code = ord(code)  # how pvapy gives a signed byte
            sent, size = pv_object.getLong("compressedSize"), pv_object.getLong("uncompressedSize")
            packed = Packed(codec, code, sent, size, kind == pva.LONG)
        if field == "booleanValue":
            payload = np.asarray(payload, np.bool_)  # signed bytes in pvapy
        array = counts_of(raw_id, [int(dimension["size"]) for dimension in dimensions], payload, packed, fault)
        time = _posix_of(pv_object, "dataTimeStamp")
        if not time and pv_object.hasField("timeStamp"):  # optional in an NTNDArray
            time = _posix_of(pv_object, "timeStamp")
        found = _attributes(pv_object, attributes) if attributes else {}
        return RawArray(raw_id, time, array, found, region_of(dimensions), codec)
    except (pva.PvaException, LookupError, TypeError, ValueError) as error:
        not_an_ntndarray(error)


def _posix_of(pv_object: pva.PvObject, stamp: str) -> float:
    return posix_time(pv_object.getLong(f"{stamp}.secondsPastEpoch"), pv_object.getInt(f"{stamp}.nanoseconds"))


def _attributes(pv_object: pva.PvObject, wanted: Collection[str]) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    try:
        for attribute in pv_object.getStructureArray("attribute"):
            if (name := attribute["name"]) in wanted:
                held, kinds = attribute["value"]
                value = held.get("value")
                if isinstance(value, float | int | str):
                    found[name] = ord(str(value)) if kinds.get("value") == pva.BYTE else value
    except UnicodeDecodeError:
        # pvapy cannot turn a negative byte into a letter. Reading the update as JSON is slow, but right.
        for attribute in json.loads(pv_object.toJSON(False))["attribute"]:
            if attribute["name"] in wanted and isinstance(attribute["value"], float | int | str):
                found[attribute["name"]] = attribute["value"]
    return found
