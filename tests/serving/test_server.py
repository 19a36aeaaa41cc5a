"""The page's server by its requests: fillings, files, refusals."""

import io
import json
import re
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import FILLED, HOLE, RGB, SIZE
from page_client import BODY, Client, decoded, encoded, packed, running
from PIL import Image, ImageCms

from inpaint_ops import serving
from inpaint_ops.serving import guard, pictures, routes
from inpaint_ops.serving.refusals import Refusal

PHOTO = encoded(RGB)
PAGE = Path(serving.__file__).parent / "page"


def job_of(client, **query):
    return client.start(client.open(PHOTO)["id"], HOLE, **query)


def test_a_picture_is_filled_and_nothing_else_changes(client, filler):
    opened = client.open(PHOTO, "my photo.png")
    assert (opened["name"], opened["width"], opened["height"]) == ("my photo.png", SIZE, SIZE)
    shown = client.get(f"/api/pictures/{opened['id']}/shown.png")
    np.testing.assert_array_equal(decoded(shown), RGB)
    job = client.start(opened["id"], HOLE, seed=7)
    facts = client.finish(job)
    assert facts["error"] == ""
    assert facts["seconds"] > 0
    assert filler.seeds == [7]
    np.testing.assert_array_equal(decoded(client.get(f"/api/jobs/{job}/shown.png")), FILLED)
    for suffix in ("png", "tif", "webp"):
        content = client.get(f"/api/jobs/{job}/file", suffix=suffix)
        np.testing.assert_array_equal(decoded(content), FILLED)
    _, headers, _ = client.ask("GET", f"/api/jobs/{job}/file?suffix=jpg")
    assert headers["Content-Disposition"] == "attachment; filename*=UTF-8''my%20photo-filled.jpg"
    assert headers["Content-Type"] == "image/jpeg"


def test_a_mask_has_the_size_of_the_picture_when_that_is_no_multiple_of_eight(client):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 13, 3), dtype=np.uint8)
    hole = np.zeros((7, 13), np.uint8)
    hole[6, 12] = hole[0, 0] = hole[3, 5:9] = 1
    job = client.start(client.open(encoded(pixels))["id"], hole)
    client.finish(job)
    changed = (decoded(client.get(f"/api/jobs/{job}/file", suffix="png")) != pixels).any(axis=2)
    np.testing.assert_array_equal(changed, hole > 0)


def test_metadata_are_kept_as_fill_keeps_them(client):
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a harbour", 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = encoded(RGB[:8], "JPEG", exif=exif, icc_profile=profile, dpi=(300, 300))
    opened = client.open(content, "harbour.jpg")
    # Upright: the file stores it on its side.
    assert (opened["width"], opened["height"]) == (8, SIZE)
    hole = np.zeros((SIZE, 8), np.uint8)
    hole[2:5, 2:5] = 1
    job = client.start(opened["id"], hole)
    client.finish(job)
    for suffix in ("png", "jpg", "tif", "webp"):
        with Image.open(io.BytesIO(client.get(f"/api/jobs/{job}/file", suffix=suffix))) as saved:
            assert saved.size == (8, SIZE)
            assert saved.getexif()[0x010E] == "a harbour"
            assert saved.getexif().get(0x0112, 1) == 1
            assert saved.info["icc_profile"] == profile
    with Image.open(io.BytesIO(client.get(f"/api/pictures/{opened['id']}/shown.png"))) as seen:
        assert seen.info["icc_profile"] == profile
        assert not dict(seen.getexif())


def test_formats_are_those_that_hold_the_picture(client):
    def suffixes(pixels, **options):
        return [one["suffix"] for one in client.open(encoded(pixels, **options))["formats"]]

    assert suffixes(RGB) == ["png", "jpg", "tif", "webp"]
    deep = (RGB[..., 0].astype(np.uint16) << 8) | 1
    assert suffixes(deep) == ["png", "tif"]
    glassy = np.dstack([RGB, np.full(RGB.shape[:2], 100, np.uint8)])
    assert suffixes(glassy) == ["png", "tif", "webp"]


def test_a_result_can_be_painted_on_again(client):
    job = job_of(client)
    client.finish(job)
    kept = client.post(f"/api/jobs/{job}/keep")
    assert (kept["width"], kept["height"], kept["name"]) == (SIZE, SIZE, "photo.png")
    second = client.start(kept["id"], HOLE.T)
    client.finish(second)
    both = FILLED.copy()
    both[HOLE.T > 0] = (0, 128, 255)
    pixels = decoded(client.get(f"/api/jobs/{second}/file", suffix="png"))
    np.testing.assert_array_equal(pixels, both)


class Waiting:
    """A filler that waits for the test between its steps."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, image, hole, *, seed=0, progress=None):
        progress(0.25)
        self.begun.set()
        assert self.go.wait(120)
        progress(0.75)
        return image


@pytest.fixture
def waiting(methods):
    filler = Waiting()
    methods[0] = serving.Method("exemplar", "Waits.", lambda: filler)
    yield filler
    filler.go.set()


def test_one_filling_at_a_time_and_it_can_be_cancelled(waiting, client):
    opened = client.open(PHOTO)["id"]
    job = client.start(opened, HOLE)
    assert waiting.begun.wait(120)
    facts = client.state(job)
    assert (facts["state"], facts["fraction"], facts["cancelling"]) == ("filling", 0.25, False)
    query = {"width": SIZE, "height": SIZE, "method": "exemplar"}
    path = f"/api/pictures/{opened}/fill"
    status, facts = client.json("POST", path, packed(HOLE), **query)
    assert (status, facts["error"]) == (
        409,
        "Another picture is being filled; wait for it, or cancel it.",
    )
    status, facts = client.json("GET", f"/api/jobs/{job}/shown.png")
    assert (status, facts["error"]) == (409, "This picture is not filled yet.")
    assert client.post(f"/api/jobs/{job}/cancel")["cancelling"] is True
    waiting.go.set()
    client.finish(job, "cancelled")
    # Its place is free again.
    client.finish(client.start(opened, HOLE))


def test_a_filling_that_fails_says_why_and_the_next_succeeds(client, filler, capsys):
    opened = client.open(PHOTO)["id"]
    filler.fail_at = 1
    assert client.finish(client.start(opened, HOLE), "failed")["error"] == "boom"
    filler.fail_at, filler.error = 2, KeyError("surprise")
    facts = client.finish(client.start(opened, HOLE), "failed")
    assert facts["error"] == "KeyError: 'surprise'"
    assert "Traceback" in capsys.readouterr().err
    client.finish(client.start(opened, HOLE))


def test_weights_are_read_once_and_what_is_wrong_with_them_is_told(methods, filler):
    read = []

    def build():
        read.append(1)
        if len(read) == 1:
            raise ValueError("states.pth: holds no weights")
        return filler

    methods[1] = serving.Method("painter", "Paints.", build, "faces", ("states.pth",))
    with running(methods) as server:
        client = Client(server.port)
        job = job_of(client, method="painter:faces")
        assert client.finish(job, "failed")["error"] == "states.pth: holds no weights"
        for _ in range(2):
            client.finish(job_of(client, method="painter:faces"))
        assert len(read) == 2
        client.finish(job_of(client))
        listed = json.loads(client.get("/api/setup"))["methods"]
        assert [(one["key"], one["ready"]) for one in listed] == [
            ("exemplar", True),
            ("painter:faces", True),
        ]
        assert listed[1]["files"] == ["states.pth"]


def test_pictures_are_forgotten_in_turn(client):
    names = [client.open(PHOTO)["id"] for _ in range(pictures.KEPT + 1)]
    status, facts = client.json("GET", f"/api/pictures/{names[0]}/shown.png")
    assert status == 410
    assert facts["error"] == "The server no longer holds this picture; open the file again."
    for name in names[1:]:
        client.get(f"/api/pictures/{name}/shown.png")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "photo.png: the file is empty"),
        (b"<svg></svg>", "photo.png: not a readable picture (unknown format)"),
        (PHOTO[:90], "photo.png: not a readable picture"),
        (encoded(RGB[..., 0], "GIF", save_all=True, append_images=[Image.new("L", (12, 12))]),
         "2 frames"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused(client, content, text):
    status, facts = client.json("POST", "/api/pictures", content, name="photo.png")
    assert status == 422
    assert text in facts["error"]


def test_large_files_and_pictures_are_refused(client, monkeypatch):
    monkeypatch.setattr(routes, "MAX_BYTES", 300_000)
    status, facts = client.json("POST", "/api/pictures", bytes(400_000), name="a.png")
    assert status == 413
    assert facts["error"] == "The file has 0.4 MB, at most 0.3 MB are accepted."
    status, facts, closed = client.raw(
        ["POST /api/pictures HTTP/1.1", "Host: 127.0.0.1:PORT", f"Content-Length: {'9' * 5000}"]
    )
    assert (status, closed) == (413, True)
    monkeypatch.setattr(pictures, "MAX_PIXELS", SIZE * SIZE - 1)
    status, facts = client.json("POST", "/api/pictures", PHOTO, name="a.png")
    assert status == 422
    assert "12x12 pixels are more than" in facts["error"]


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ({"width": 6, "height": 24}, 422, "The mask has 6x24 pixels, the picture 12x12."),
        ({"width": 12}, 400, "must state height once"),
        ({"height": "-12"}, 400, "height must be a whole number"),
        ({"width": "1" * 5000}, 400, "width must be a whole number"),
        ({"seed": "x"}, 400, "seed must be a whole number"),
        ({"seed": "²"}, 400, "seed must be a whole number"),
        ({"method": "magic"}, 400, "not offered"),
        ({"method": "painter"}, 400, "no weights here"),
    ],
)
def test_wrong_fillings_are_refused(client, query, status, text):
    opened = client.open(PHOTO)["id"]
    good = {"width": 12, "height": 12, "method": "exemplar", "seed": 0}
    if query == {"width": 12}:
        good.pop("height")
    given = {**good, **query}
    got, facts = client.json("POST", f"/api/pictures/{opened}/fill", packed(HOLE), **given)
    assert (got, text in facts["error"]) == (status, True), facts


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (packed(HOLE)[:-1], "The mask of 12x12 pixels has 18 bytes, got 17."),
        (packed(HOLE) + b"\0", "The mask of 12x12 pixels has 18 bytes, got 19."),
        (bytes(18), "Nothing is painted yet."),
        (b"\xff" * 18, "The whole picture is painted"),
        (b"", "has 18 bytes, got 0"),
    ],
)
def test_wrong_masks_are_refused(client, bits, text):
    opened = client.open(PHOTO)["id"]
    query = {"width": 12, "height": 12, "method": "exemplar"}
    status, facts = client.json("POST", f"/api/pictures/{opened}/fill", bits, **query)
    assert (status, text in facts["error"]) == (422, True), facts


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("../../etc/passwd.png", "passwd.png"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/", "picture"),
        ("..", "picture"),
        ("a\0\r\nSet-Cookie: b.png", "aSet-Cookie b.png"),
        ('"><script>.jpg', "script.jpg"),
        ("Mädchen 猫.JPG", "Mädchen 猫.JPG"),
        ("x" * 5000 + ".jpeg", "x" * 100 + ".jpeg"),
    ],
)
def test_names_of_files_are_only_names(client, name, cleaned):
    opened = client.open(PHOTO, name)
    assert opened["name"] == cleaned
    job = client.start(opened["id"], HOLE)
    client.finish(job)
    _, headers, _ = client.ask("GET", f"/api/jobs/{job}/file?suffix=png")
    assert re.fullmatch(
        r"attachment; filename\*=UTF-8''[\w.%~-]+-filled\.png", headers["Content-Disposition"]
    )


@pytest.mark.parametrize("suffix", ["gif", "../png", "", "png/../../x"])
def test_formats_that_are_not_offered_are_refused(client, suffix):
    job = job_of(client)
    client.finish(job)
    status, facts = client.json("GET", f"/api/jobs/{job}/file", suffix=suffix)
    assert (status, facts["error"]) == (400, "The format must be one of png, jpg, tif, webp.")


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/index.html", 404),
        ("GET", "/../server.py", 404),
        ("GET", "/page/main.js", 404),
        ("GET", "/%2e%2e/server.py", 404),
        ("GET", "//etc/passwd", 404),
        ("GET", "/etc/passwd", 404),
        ("GET", "/api/pictures/../../server.py/shown.png", 404),
        ("GET", "/api/pictures/none/shown.png", 410),
        ("GET", "/api/jobs/none", 410),
        ("GET", "/api/jobs/none/file?suffix=png", 410),
        ("POST", "/api/jobs/none/cancel", 410),
        ("POST", "/", 405),
        ("GET", "/api/pictures", 405),
        ("POST", "/api/setup", 405),
        ("PUT", "/api/pictures", 501),
        ("OPTIONS", "/api/pictures", 501),
        ("DELETE", "/", 501),
    ],
)
def test_what_is_not_there_is_refused(client, verb, path, status):
    got, facts = client.json(verb, path)
    assert got == status
    assert facts["error"]


REBOUND = "This server answers to 127.0.0.1 and localhost alone."
OTHERS = "Requests of other sites are refused."


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        (["Host: evil.example:PORT"], REBOUND),
        (["Host: 127.0.0.1"], REBOUND),
        (["Host: 127.0.0.1:1"], REBOUND),
        (["Host: 127.0.0.1:PORT.evil.example"], REBOUND),
        ([], REBOUND),
        (["Host: 127.0.0.1:PORT", "Host: evil.example"], REBOUND),
        (["Host: 127.0.0.1:PORT", "Origin: http://evil.example"], OTHERS),
        (["Host: 127.0.0.1:PORT", "Origin: null"], OTHERS),
        (["Host: 127.0.0.1:PORT", "Origin: https://127.0.0.1:PORT"], OTHERS),
        (["Host: 127.0.0.1:PORT", "Origin: http://127.0.0.1:1"], OTHERS),
        (["Host: 127.0.0.1:PORT", "Origin: http://localhost:PORT"], OTHERS),
        (["Host: 127.0.0.1:PORT", "Sec-Fetch-Site: cross-site"], OTHERS),
        (["Host: 127.0.0.1:PORT", "Sec-Fetch-Site: same-site"], OTHERS),
        (["Host: localhost:PORT"], None),
        (["Host: LOCALHOST:PORT", "Origin: http://localhost:PORT"], None),
        (["Host: 127.0.0.1:PORT", "Origin: http://127.0.0.1:PORT"], None),
        (["Host: 127.0.0.1:PORT", "Sec-Fetch-Site: same-origin"], None),
        (["Host: 127.0.0.1:PORT", "Sec-Fetch-Site: none"], None),
    ],
)
def test_other_sites_are_refused(client, headers, text):
    status, facts, _ = client.raw(["GET /api/setup HTTP/1.1", *headers])
    assert (status, facts.get("error")) == (200 if text is None else 403, text)
    lines = ["POST /api/pictures HTTP/1.1", *headers, f"Content-Length: {len(PHOTO)}"]
    lines.append(f"Content-Type: {BODY['Content-Type']}")
    status, facts, closed = client.raw(lines, PHOTO)
    assert (status, facts.get("error")) == (200 if text is None else 403, text)
    # The body of a refused request is not taken for another request.
    assert closed == (text is not None)


def test_other_sites_may_link_to_the_page_and_not_show_it_in_a_frame(client):
    status, headers, body = client.ask("GET", "/", headers={"Sec-Fetch-Site": "cross-site"})
    assert status == 200
    assert b"<title>" in body
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    for name in ("/main.js", "/page.css"):
        assert client.ask("GET", name, headers={"Sec-Fetch-Site": "cross-site"})[0] == 403


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ([], 411, "must state its length"),
        (["Transfer-Encoding: chunked"], 411, "must state its length"),
        (["Content-Length: 3", "Content-Length: 4"], 400, "not a number"),
        (["Content-Length: -3"], 400, "not a number"),
        (["Content-Length: 0x3"], 400, "not a number"),
        (["Content-Length: 3"], 415, "must be application/octet-stream"),
        (["Content-Length: 3", "Content-Type: text/plain"], 415, "application/octet-stream"),
    ],
)
def test_bodies_state_what_they_are(client, headers, status, text):
    lines = ["POST /api/pictures?name=a HTTP/1.1", "Host: 127.0.0.1:PORT", *headers]
    got, facts, _ = client.raw(lines, b"abc")
    assert (got, text in facts["error"]) == (status, True), facts


def test_a_body_must_arrive_in_time(monkeypatch):
    class Slow(io.BytesIO):
        def read1(self, size=-1):
            time.sleep(0.02)
            return super().read1(1)

    monkeypatch.setattr(guard, "BODY_SECONDS", 0.05)
    with pytest.raises(Refusal, match="took too long"):
        guard.read_body(Slow(bytes(100)), 100)
    with pytest.raises(Refusal, match="ended before"):
        guard.read_body(io.BytesIO(b"abc"), 4)
    assert guard.read_body(io.BytesIO(b"abcd"), 3) == b"abc"


def test_connections_that_say_nothing_useful_do_no_harm(client, capsys):
    for nonsense in (b"NONSENSE\r\n\r\n", b"GET / HTTP/9.1\r\n\r\n", b"\0" * 70_000):
        with socket.create_connection(("127.0.0.1", client.port), timeout=120) as connection:
            connection.sendall(nonsense)
            assert b'"error"' in connection.makefile("rb").read()
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        connection.sendall(b"POST /api/pictures HTTP/1.1\r\nHost: 127.0.0.1:")
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", client.port)):
            pass
    client.get("/")
    assert capsys.readouterr().err == ""


def test_every_file_of_the_page_is_served_and_asks_for_nothing_elsewhere(client):
    for path in PAGE.iterdir():
        body = client.get("/" if path.name == "index.html" else f"/{path.name}")
        assert body == path.read_bytes()
        text = body.decode()
        # The name of SVG itself is no address.
        text = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", text), path.name


def test_every_control_has_a_name(client):
    page = client.get("/").decode()
    labelled = set(re.findall(r'<label[^>]* for="([\w-]+)"', page))
    controls = re.findall(r'<(?:input|select)[^>]* id="([\w-]+)"', page)
    assert controls
    assert set(controls) <= labelled
    used = set(re.findall(r'byId\("([\w-]+)"\)', "".join(p.read_text() for p in PAGE.glob("*.js"))))
    assert used <= set(re.findall(r' id="([\w-]+)"', page))
