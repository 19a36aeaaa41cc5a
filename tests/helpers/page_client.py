"""Requests to the page's server, as the page sends them and otherwise."""

import http.client
import io
import json
import socket
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlencode

import numpy as np
from PIL import Image

from inpaint_ops.serving import PageServer

BODY = {"Content-Type": "application/octet-stream"}


class Client:
    """Sends requests to a server on this machine."""

    def __init__(self, port):
        self.port = port

    def ask(self, verb, path, body=None, headers=(), **query):
        """Status, headers and body of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        address = f"{path}?{urlencode(query)}" if query else path
        given = {**(BODY if verb == "POST" else {}), **dict(headers)}
        try:
            connection.request(verb, address, body, given)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def json(self, *arguments, **query):
        """Status and facts of the answer."""
        status, headers, body = self.ask(*arguments, **query)
        assert headers["Content-Type"] == "application/json"
        return status, json.loads(body)

    def get(self, path, **query):
        status, _, body = self.ask("GET", path, **query)
        assert status == 200, body
        return body

    def post(self, path, body=b"", **query):
        status, facts = self.json("POST", path, body, **query)
        assert status == 200, facts
        return facts

    def raw(self, lines, body=b""):
        """Status, facts and whether the connection was closed, for a request line by line."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as connection:
            head = "\r\n".join(lines).replace("PORT", str(self.port))
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            facts = json.loads(answer.read())
            connection.settimeout(0.3)
            try:
                closed = connection.recv(1) == b""
            except TimeoutError:
                closed = False
        return answer.status, facts, closed

    def open(self, content, name="photo.png"):
        return self.post("/api/pictures", content, name=name)

    def start(self, picture, hole, method="exemplar", **query):
        height, width = hole.shape
        query = {"width": width, "height": height, "method": method, **query}
        return self.post(f"/api/pictures/{picture}/fill", packed(hole), **query)["id"]

    def state(self, job):
        return json.loads(self.get(f"/api/jobs/{job}"))

    def finish(self, job, wanted="done"):
        """Waits until a filling has ended; returns its facts."""
        end = time.monotonic() + 120
        while (facts := self.state(job))["state"] in ("reading", "filling"):
            assert time.monotonic() < end
            time.sleep(0.01)
        assert facts["state"] == wanted, facts
        return facts


def packed(hole):
    """A hole as the page sends it."""
    return np.packbits(hole != 0).tobytes()


def encoded(pixels, form="PNG", **options):
    """A picture file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format=form, **options)
    return stream.getvalue()


def decoded(content):
    """The pixels of a picture file."""
    with Image.open(io.BytesIO(content)) as picture:
        return np.array(picture)


@contextmanager
def running(methods):
    """A server in a thread of its own, which ends with the block."""
    server = PageServer(methods)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        assert server.stop(10)
