"""Rules for requests, checked before anything is done: who asks, and how much they send.

A page of another site can send requests to this machine, and can let its own name lead here (DNS
rebinding). A browser tells both: the first by ``Origin`` and ``Sec-Fetch-Site``, the second by
``Host``.
"""

from __future__ import annotations

import time
from email.message import Message
from http import HTTPStatus
from io import BufferedIOBase

from inpaint_ops.serving.refusals import Refusal

# Names of this machine in an address, as browsers write them.
LOCAL_NAMES = ("127.0.0.1", "localhost")
# Type of every body. A form of another site cannot send it, and a script must ask first.
BODY_TYPE = "application/octet-stream"
# Seconds in which a body must arrive.
BODY_SECONDS = 120.0
_CHUNK = 1 << 20


def check_sender(headers: Message, port: int, *, opens_page: bool) -> None:
    """Refuse a request that does not come from our own page, or was not sent to this machine.

    Args:
        headers: of the request.
        port: that the server listens on.
        opens_page: the request is for the page itself, to which other sites may link.

    Raises:
        Refusal: with status 403.
    """
    hosts = {f"{name}:{port}" for name in LOCAL_NAMES}
    if port == 80:
        hosts.update(LOCAL_NAMES)
    given = [host.strip().lower() for host in headers.get_all("Host") or []]
    if len(given) != 1 or given[0] not in hosts:
        raise _forbidden("This server answers to 127.0.0.1 and localhost alone.")
    origins = {origin.strip().lower() for origin in headers.get_all("Origin") or []}
    # The page's own origin: its other name is another site.
    if origins - {f"http://{given[0]}"}:
        raise _forbidden("Requests of other sites are refused.")
    if opens_page:
        return
    site = headers.get("Sec-Fetch-Site", "same-origin").strip().lower()
    # "none" is an address that the user typed.
    if site not in ("same-origin", "none"):
        raise _forbidden("Requests of other sites are refused.")


def _forbidden(text: str) -> Refusal:
    return Refusal(HTTPStatus.FORBIDDEN, text)


def body_length(headers: Message, most: int, what: str) -> int:
    """Return the length of a request's body in bytes.

    Raises:
        Refusal: it is not stated, stated twice, no number or more than `most`, or the type of the
            body is not `BODY_TYPE`.
    """
    if headers.get("Transfer-Encoding") is not None:
        raise Refusal(HTTPStatus.LENGTH_REQUIRED, "The body must state its length.")
    given = headers.get_all("Content-Length") or []
    if not given:
        raise Refusal(HTTPStatus.LENGTH_REQUIRED, "The body must state its length.")
    text = given[0].strip()
    if len(given) != 1 or not (text.isascii() and text.isdigit()):
        raise Refusal(HTTPStatus.BAD_REQUEST, "The length of the body is not a number.")
    # int() refuses numbers of thousands of digits.
    length = int(text) if len(text) < 20 else most + 1
    if length > most:
        raise Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{what} has {megabytes(length)}, at most {megabytes(most)} are accepted.",
        )
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != BODY_TYPE:
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"The body must be {BODY_TYPE}.")
    return length


def megabytes(count: int) -> str:
    """Return a number of bytes for a message."""
    return f"{count} bytes" if count < 100_000 else f"{count / 2**20:.1f} MB"


def read_body(stream: BufferedIOBase, length: int) -> bytes:
    """Read a body.

    Raises:
        Refusal: it ended early, or took longer than `BODY_SECONDS`.
        OSError: the connection was lost, or nothing came for a while.
    """
    deadline = time.monotonic() + BODY_SECONDS
    body = bytearray()
    while len(body) < length:
        # One read of the socket at a time, so that a sender of single bytes meets the deadline.
        chunk = stream.read1(min(_CHUNK, length - len(body)))
        if not chunk:
            raise Refusal(HTTPStatus.BAD_REQUEST, "The body ended before its stated length.")
        if time.monotonic() > deadline:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "The body took too long to arrive.")
        body += chunk
    return bytes(body)
