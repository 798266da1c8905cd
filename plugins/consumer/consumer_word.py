"""The word of a cluster: reports and orders are signed with a key that its processes share.

Whoever serves a channel of the right name could otherwise add a canvas of its own, or order a model.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import numbers
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np

from ptychostream.cluster.id_set import IdSet
from ptychostream.errors import DropCause, StreamError
from ptychostream.plugins.consumer.consumer_report import Report
from ptychostream.plugins.flow.snapshot import LatestPatch

R = TypeVar("R", bound=Report)
_REMEDY = "give every process of the cluster the same key_file"


def signed_report(report: R, key: bytes | None) -> R:
    """The report with its signature; without a key as it is."""
    return report if key is None else replace(report, signed=_report_word(report, key))


def check_report(report: Report, key: bytes | None) -> None:
    """Raise StreamError where there is a key and the report is not signed with it."""
    if key is not None and not hmac.compare_digest(report.signed.encode(), _report_word(report, key).encode()):
        what = "a report with a wrong signature" if report.signed else "a report that is not signed"
        raise StreamError(what, where=f"consumer {report.consumer}", remedy=_REMEDY)


def signed_orders(text: str, key: bytes | None) -> str:
    """The text of the orders with its signature; without a key as it is."""
    return text if key is None else json.dumps({"signed": _orders_word(text, key), "orders": text})


def checked_orders(text: str, key: bytes | None) -> str:
    """The text of orders. Raises StreamError where there is a key and they are not signed with it."""
    if key is None or not text.strip():
        return text
    try:
        found = json.loads(text)
        orders, word = str(found["orders"]), str(found["signed"])
    except (ValueError, KeyError, TypeError) as error:
        raise StreamError("orders that are not signed", where="the collector's orders", remedy=_REMEDY) from error
    if not hmac.compare_digest(word.encode(), _orders_word(orders, key).encode()):
        raise StreamError("orders with a wrong signature", where="the collector's orders", remedy=_REMEDY)
    return orders


def _orders_word(text: str, key: bytes) -> str:
    return hmac.new(key, b"orders" + text.encode(), hashlib.sha256).hexdigest()


def _report_word(report: Report, key: bytes) -> str:
    word = hmac.new(key, b"report", hashlib.sha256)
    _add(word, replace(report, signed=""))
    return word.hexdigest()


def _add(word: Any, value: Any) -> None:
    """Feed a value in a form that is the same before and after its way through PV Access."""
    if isinstance(value, LatestPatch):  # the rest of a patch stays where it was made
        value = (value.phase, value.frame_id, value.x_m, value.y_m)
    if isinstance(value, IdSet):
        value = (value.first, value.outside, np.asarray(value.bits, np.uint8))
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        word.update(f"array {array.dtype.str} {array.shape};".encode())
        word.update(array.data if array.size else b"")
    elif is_dataclass(value):
        for field in fields(value):
            word.update(f"{field.name}=".encode())
            _add(word, getattr(value, field.name))
    elif isinstance(value, Mapping):
        _add(word, tuple(int(value.get(cause, 0)) for cause in DropCause))
    elif isinstance(value, tuple):
        word.update(f"({len(value)};".encode())
        for part in value:
            _add(word, part)
    elif isinstance(value, bool | str) or value is None:
        word.update(f"{type(value).__name__} {len(str(value))} {value};".encode())
    elif isinstance(value, numbers.Integral):
        word.update(f"{int(value)};".encode())
    else:
        word.update(f"{float(value)!r};".encode())
