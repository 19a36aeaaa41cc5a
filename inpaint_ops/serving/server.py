"""The server: sockets, threads and time limits; what is asked for is found by `routes`."""

from __future__ import annotations

import socket
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from inpaint_ops.serving.guard import check_sender, read_body
from inpaint_ops.serving.methods import Method
from inpaint_ops.serving.refusals import Refusal
from inpaint_ops.serving.routes import Answer, Request, Routes, json_answer

# The only address that is listened on: nothing outside this machine reaches it.
ADDRESS = "127.0.0.1"
# Seconds without a byte after which a connection is closed.
_IDLE = 30.0
# Of what a refused request still sends, so much is read: an answer to a browser that is still
# sending would be lost.
_DRAINED_SECONDS = 2.0
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageServer(ThreadingMixIn, TCPServer):
    """Server of the page on this machine alone.

    Args:
        methods: that the page offers, the first being chosen at the start.
        port: to listen on; 0 takes a free one.

    Raises:
        OSError: the port is in use, or may not be used.
    """

    daemon_threads = True
    # On Windows it would let two servers listen on one port.
    allow_reuse_address = sys.platform != "win32"
    # A browser opens several connections at once.
    request_queue_size = 32

    def __init__(self, methods: Sequence[Method], port: int = 0) -> None:
        self.routes = Routes(methods)
        super().__init__((ADDRESS, port), _Handler)

    @property
    def port(self) -> int:
        """Port that is listened on."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{ADDRESS}:{self.port}/"

    def stop(self, seconds: float) -> bool:
        """Close the socket and cancel a filling; False if one still runs after so many seconds."""
        self.server_close()
        return self.routes.jobs.close(seconds)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about clients that have gone."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection: reads requests, passes them through the guard, writes answers."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "inpaint-ops", ""
    timeout = _IDLE
    # Answers are written in one piece.
    wbufsize = -1
    _body_read = False

    def do_GET(self) -> None:
        """Answer a request for something."""
        self._answer()

    def do_POST(self) -> None:
        """Answer a request to do something."""
        self._answer()

    def _answer(self) -> None:
        self._body_read = False
        try:
            answer = self._find()
        except Refusal as exc:
            self._send(exc.status, _error(str(exc)))
        except (ConnectionError, TimeoutError):
            raise
        except MemoryError:
            self._send(HTTPStatus.INSUFFICIENT_STORAGE, _error("There is too little memory."))
        except Exception:
            traceback.print_exc(file=sys.stderr)
            text = "The server has failed; its terminal shows the reason."
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, _error(text))
        else:
            self._send(HTTPStatus.OK, answer)

    def _find(self) -> Answer:
        path, _, query = self.path.partition("?")
        check_sender(
            self.headers, self.server.port, opens_page=self.command == "GET" and path == "/"
        )
        return self.server.routes.answer(
            self.command, path, Request(self.headers, query, self._read)
        )

    def _read(self, length: int) -> bytes:
        body = read_body(self.rfile, length)
        self._body_read = True
        return body

    def _send(self, status: HTTPStatus, answer: Answer) -> None:
        # What was not read would be taken for the next request.
        self._write(status, answer, close=not self._body_read and self._has_body())

    def _write(self, status: int, answer: Answer, *, close: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in {**_HEADERS, **answer.headers}.items():
            self.send_header(name, value)
        if close:
            # Sets `close_connection`, too.
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)
        self.wfile.flush()
        if close:
            self._drain()

    def _has_body(self) -> bool:
        stated = self.headers.get("Content-Length", "0").strip()
        return stated != "0" or self.headers.get("Transfer-Encoding") is not None

    def _drain(self) -> None:
        deadline = time.monotonic() + _DRAINED_SECONDS
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_DRAINED_SECONDS)
            while time.monotonic() < deadline and self.connection.recv(1 << 20):
                pass

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request, or one of another kind, as every other refusal is answered."""
        self.close_connection = True
        self._write(code, _error(message or HTTPStatus(code).phrase), close=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Print no line for each request."""


def _error(text: str) -> Answer:
    return json_answer({"error": text})
