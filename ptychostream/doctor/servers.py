"""Which servers have a PV Access channel: two of them are one too many."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence

from ptychostream.doctor.finding import Finding, fail, ok
from ptychostream.rawpva.search import asking, broadcast_addresses, read_answer
from ptychostream.rawpva.wire import MessageStream, WireError

_ID = 1
_GUID_BYTES = 12
_AGAIN_S = 0.3


def check_servers(key: str, channel: str, servers: Sequence[str], connected: bool, addresses: str) -> Finding:
    """Whether one server has the channel.

    Parameters
    ----------
    key
        Of the configuration, which names the channel.
    servers
        "host:port" of each server that answered.
    connected
        Whether the channel could be connected, through a name server for example.
    addresses
        Where was searched, for the remedy.
    """
    check = "detector" if key == "input.pv" else "position stream"
    if not channel:
        return fail(check, f"{key} is empty", f"name the PVA channel in {key}")
    if len(servers) > 1:
        what = f"{len(servers)} servers have {channel}: {', '.join(servers)}; clients get one of them by chance"
        return fail(check, what, "end all but one, or give one of them another prefix")
    if not servers and not connected:
        remedy = "start its PVA plugin (EnableCallbacks 1), and put its host into EPICS_PVA_ADDR_LIST"
        return fail(check, f"no server has {channel} (searched {addresses})", remedy)
    return ok(check, f"{channel} is served by {servers[0] if servers else 'a server that a name server knows'}")


def find_servers(channel: str, environment: Mapping[str, str], wait_s: float) -> list[str]:
    """ "host:port" of every server that answers a search for the channel within `wait_s`."""
    found: dict[bytes, str] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        asker.bind(("", 0))
        question = asking(channel, _ID, asker.getsockname()[1])
        end, asked = time.monotonic() + wait_s, 0.0
        while (now := time.monotonic()) < end:
            if now - asked >= _AGAIN_S:
                asked = now
                _ask(asker, question, environment)
            asker.settimeout(max(0.01, min(end, asked + _AGAIN_S) - now))
            try:
                data, sender = asker.recvfrom(1 << 16)
            except TimeoutError:
                continue
            found.update(_answers(data, sender[0]))
    return sorted(found.values())


def searched(environment: Mapping[str, str]) -> str:
    """The addresses of a search, as a text."""
    return ", ".join(f"{host}:{port}" for host, port in broadcast_addresses(environment)) or "nowhere"


def _ask(asker: socket.socket, question: bytes, environment: Mapping[str, str]) -> None:
    for address in broadcast_addresses(environment):
        try:
            asker.sendto(question, address)
        except OSError:
            continue  # an address that this host cannot reach has no answer either


def _answers(data: bytes, sender: str) -> dict[bytes, str]:
    """Servers by their GUID: one server may answer from several addresses."""
    found: dict[bytes, str] = {}
    try:
        for message in MessageStream().feed(data):
            address = read_answer(message, _ID, sender)
            if address is not None:
                found[bytes(message.payload[:_GUID_BYTES])] = f"{address[0]}:{address[1]}"
    except WireError:
        return found
    return found
