"""What can be asked for: the page's files, pictures, fillings and their results."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from inpaint_ops.serving.guard import body_length, megabytes
from inpaint_ops.serving.jobs import Job, Jobs, read_hole
from inpaint_ops.serving.methods import Method
from inpaint_ops.serving.pictures import (
    KEPT,
    MAX_BYTES,
    MAX_PIXELS,
    Picture,
    Shelf,
    encoded,
    open_picture,
    shown,
)
from inpaint_ops.serving.refusals import Refusal

# Files of the page by their ending; nothing else of the folder is served.
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_IMAGE_TYPES = {"png": "image/png", "tif": "image/tiff", "webp": "image/webp", "jpg": "image/jpeg"}
_SEED_DIGITS = 9


@dataclass(frozen=True)
class Answer:
    """What is sent back; `headers` beside those that every answer has."""

    body: bytes
    kind: str
    headers: dict[str, str] = field(default_factory=dict)


def json_answer(facts: Any) -> Answer:
    """Return facts as JSON."""
    return Answer(json.dumps(facts).encode(), "application/json")


@dataclass(frozen=True)
class Request:
    """A request that passed the guard.

    Attributes:
        headers: of the request.
        query: what follows the question mark, not yet taken apart.
        body: reads as many bytes of the body.
    """

    headers: Message
    query: str
    body: Callable[[int], bytes]

    def value(self, name: str, default: str | None = None) -> str:
        """Return a value of the query; a Refusal if it is missing or given twice."""
        given = parse_qs(self.query, keep_blank_values=True, max_num_fields=20).get(name)
        if given is None and default is not None:
            return default
        if given is None or len(given) != 1:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"The request must state {name} once.")
        return given[0]

    def number(self, name: str, default: str | None = None) -> int:
        """Return a value of the query that is a whole number, 0 or more."""
        text = self.value(name, default)
        if not (text.isascii() and text.isdigit() and len(text) <= _SEED_DIGITS):
            raise Refusal(
                HTTPStatus.BAD_REQUEST,
                f"{name} must be a whole number of at most {_SEED_DIGITS} digits.",
            )
        return int(text)


class Routes:
    """Pictures, fillings and files of the page, and the requests that reach them.

    Args:
        methods: that the page offers, the first being chosen at the start.
    """

    def __init__(self, methods: Sequence[Method]) -> None:
        self._methods = {method.key: method for method in methods}
        self._pictures: Shelf[Picture] = Shelf("picture", KEPT)
        self.jobs = Jobs(KEPT)
        self._opening = threading.Lock()
        self._page = _page_files()
        item = r"([\w-]{1,64})"
        self._table: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = [
            (verb, re.compile(pattern), function)
            for verb, pattern, function in (
                ("GET", "/api/setup", self._setup),
                ("POST", "/api/pictures", self._open),
                ("GET", f"/api/pictures/{item}/shown.png", self._shown),
                ("POST", f"/api/pictures/{item}/fill", self._fill),
                ("GET", f"/api/jobs/{item}", self._job),
                ("POST", f"/api/jobs/{item}/cancel", self._cancel),
                ("POST", f"/api/jobs/{item}/keep", self._keep),
                ("GET", f"/api/jobs/{item}/shown.png", self._filled),
                ("GET", f"/api/jobs/{item}/file", self._file),
            )
        ]

    def answer(self, verb: str, path: str, request: Request) -> Answer:
        """Answer a request.

        Raises:
            Refusal: it cannot be answered.
        """
        if verb == "GET" and path in self._page:
            return self._page[path]
        known = False
        for wanted, pattern, function in self._table:
            found = pattern.fullmatch(path)
            if found is not None:
                if wanted == verb:
                    return function(request, *found.groups())
                known = True
        if known or path in self._page:
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, f"{verb} is not for this address.")
        raise Refusal(HTTPStatus.NOT_FOUND, "There is nothing at this address.")

    def _setup(self, _request: Request) -> Answer:
        return json_answer(
            {
                "methods": [method.facts() for method in self._methods.values()],
                "max_bytes": MAX_BYTES,
                "max_bytes_text": megabytes(MAX_BYTES),
                "max_pixels": MAX_PIXELS,
            }
        )

    def _open(self, request: Request) -> Answer:
        length = body_length(request.headers, MAX_BYTES, "The file")
        name = request.value("name", "picture")
        # One at a time: what is held in memory stays bounded.
        if not self._opening.acquire(blocking=False):
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, "Another picture is being opened.")
        try:
            return self._put(open_picture(request.body(length), name))
        finally:
            self._opening.release()

    def _put(self, picture: Picture) -> Answer:
        return json_answer({"id": self._pictures.put(picture), **picture.facts()})

    def _shown(self, _request: Request, name: str) -> Answer:
        return Answer(shown(self._pictures.get(name).photo), "image/png")

    def _fill(self, request: Request, name: str) -> Answer:
        picture = self._pictures.get(name)
        height, width = picture.photo.size
        # A mask of another size is told so by its stated size, not by its length.
        length = body_length(request.headers, MAX_PIXELS // 8 + 1, "The mask")
        bits = request.body(length)
        stated = (request.number("height"), request.number("width"))
        hole = read_hole(bits, (height, width), stated)
        method = self._methods.get(request.value("method"))
        if method is None or method.build is None:
            raise Refusal(
                HTTPStatus.BAD_REQUEST, "This method is not offered, or has no weights here."
            )
        job = Job(picture, hole, method, request.number("seed", "0"))
        return json_answer({"id": self.jobs.start(job)})

    def _job(self, _request: Request, name: str) -> Answer:
        return json_answer(self.jobs.get(name).facts())

    def _cancel(self, request: Request, name: str) -> Answer:
        request.body(body_length(request.headers, 0, "The body"))
        job = self.jobs.get(name)
        job.cancel()
        return json_answer(job.facts())

    def _keep(self, request: Request, name: str) -> Answer:
        """Make a filled picture one to paint on."""
        request.body(body_length(request.headers, 0, "The body"))
        job = self.jobs.get(name)
        return self._put(Picture(job.picture.name, job.result()))

    def _filled(self, _request: Request, name: str) -> Answer:
        return Answer(shown(self.jobs.get(name).result()), "image/png")

    def _file(self, request: Request, name: str) -> Answer:
        job, suffix = self.jobs.get(name), request.value("suffix")
        content = encoded(job.result(), suffix)
        file_name = quote(job.picture.file_name(suffix), safe="")
        return Answer(
            content,
            _IMAGE_TYPES[suffix],
            {"Content-Disposition": f"attachment; filename*=UTF-8''{file_name}"},
        )


def _page_files() -> dict[str, Answer]:
    """Return the page's files by address; they are read once, and no request names a file."""
    folder = Path(__file__).parent / "page"
    files = {
        f"/{path.name}": Answer(path.read_bytes(), _TYPES[path.suffix])
        for path in sorted(folder.iterdir())
        if path.suffix in _TYPES
    }
    files["/"] = files.pop("/index.html")
    return files
