"""What a browser asks for over its WebSocket, checked."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ptychostream.config import explain
from ptychostream.errors import StreamError

LARGEST_REQUEST = 4096
"""Bytes of the largest request."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Show(_Request):
    """Show an IOC and some of its images; the first image comes as often as it changes, the others once a second."""

    ask: Literal["show"]
    ioc: str = Field(max_length=60)
    images: tuple[str, ...] = Field(max_length=16)


class Drawn(_Request):
    """An image message has been drawn: one more may be sent. `again`: it did not fit, send the complete image."""

    ask: Literal["drawn"]
    image: str = Field(max_length=200)
    again: bool = False


Request = Show | Drawn
_REQUEST: TypeAdapter[Any] = TypeAdapter(Request)


def read_request(text: str) -> Show | Drawn:
    """A request from its JSON text.

    Raises
    ------
    StreamError
        It is none.
    """
    try:
        found: Show | Drawn = _REQUEST.validate_python(json.loads(text))
        return found
    except ValidationError as error:
        raise StreamError(explain(error), where="request", remedy="send show or drawn") from error
    except (ValueError, RecursionError) as error:
        raise StreamError(f"not JSON: {error}", where="request", remedy="send a JSON object") from error
