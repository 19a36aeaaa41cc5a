"""The page in a browser: painting, filling, comparing, saving."""

import base64
import threading
import time

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, BrowserError, browser
from command_line import StubFiller
from page_client import Client, decoded, encoded, packed, running

from inpaint_ops.serving import Method

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver"
)

WIDTH, HEIGHT = 901, 603
RGB = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
COLOUR = (0, 128, 255)
CONTROL, SHIFT, ENTER, ESCAPE, SPACE, DELETE = (
    *("\ue009", "\ue008", "\ue007", "\ue00c", " ", "\ue017"),
)
# The factor of a step of zoom.
STEP = 1.4


class Recording(StubFiller):
    """Keeps the holes, and waits where it is told to."""

    def __init__(self):
        super().__init__()
        self.holes = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, image, hole, *, seed=0, progress=None):
        self.holes.append(hole[0, 0].numpy().copy())
        progress(0.4)
        while not self.go.wait(0.02):
            progress(0.4)
        return super().__call__(image, hole, seed=seed, progress=progress)


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    try:
        context = browser(tmp_path_factory.mktemp("browser"))
        one = context.__enter__()
    except BrowserError as exc:
        pytest.skip(f"chromium does not start: {exc}")
    yield one
    context.__exit__(None, None, None)


@pytest.fixture
def filler():
    return Recording()


@pytest.fixture
def page(window, filler, tmp_path):
    """The page with a picture opened, at a scale of 1."""
    methods = [
        Method("exemplar", "Copies.", lambda: filler),
        Method("painter", "Paints.", lambda: filler, "faces", ("faces.pth",)),
        Method("painter", "Paints.", lambda: filler, "places", ("a.pth", "b.pth")),
        Method("other", "Something else.", None),
    ]
    with running(methods) as server:
        window.open(server.url)
        window.url = server.url
        window.wait("document.getElementById('method').options.length === 3")
        (tmp_path / "photo.png").write_bytes(encoded(RGB))
        window.type("#file", str(tmp_path / "photo.png"))
        window.wait("!document.getElementById('paint-tools').disabled")
        window.press("1")
        yield window
        # What was painted is not asked about.
        window.open("about:blank")
        assert window.complaints() == []


def place(page, points, steps=0):
    """Points of the picture, from its middle, as points of the window and as they are painted."""
    x, y, width, height = page.box("#stage")
    scale = STEP**steps
    centre = np.array([x + width / 2, y + height / 2])
    seen = np.round(centre + np.array(points, float) * scale)
    return seen.tolist(), (seen - centre) / scale + np.array([WIDTH / 2, HEIGHT / 2])


def covered(points, size):
    """Pixels within half the size of a line through points; True and False, None on the edge."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    distance = np.full((HEIGHT, WIDTH), np.inf)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[-1]]):
        dx, dy = x1 - x0, y1 - y0
        along = ((columns - x0) * dx + (rows - y0) * dy) / max(dx * dx + dy * dy, 1e-9)
        along = np.clip(along, 0, 1)
        distance = np.minimum(distance, np.hypot(columns - x0 - along * dx, rows - y0 - along * dy))
    return distance < size / 2, np.abs(distance - size / 2) < 1e-6


def same(hole, points, size):
    inside, edge = covered(points, size)
    np.testing.assert_array_equal(hole[~edge], inside[~edge])


def brush_size(page):
    return int(page.text("#size-text").split()[0])


def fill(page):
    page.press(ENTER)
    page.wait("!document.getElementById('divider').hidden")


def saved(page, suffix="png"):
    """Saves by the key; returns the content of the file."""
    path = page.downloads / f"photo-filled.{suffix}"
    path.unlink(missing_ok=True)
    page.press("s", held=[CONTROL])
    end = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    return path.read_bytes()


def test_a_stroke_is_filled_and_nothing_else(page, filler):
    seen, painted = place(page, [(-100, -50), (60, 20), (80, 120)])
    page.drag(seen)
    size = brush_size(page)
    assert size == round(WIDTH / 20)
    page.click("#fill")
    page.wait("!document.getElementById('divider').hidden")
    same(filler.holes[0], painted, size)
    pixels = decoded(saved(page))
    expected = RGB.copy()
    expected[filler.holes[0]] = COLOUR
    np.testing.assert_array_equal(pixels, expected)
    assert "photo-filled.png" in page.text("#status")
    # Nothing comes from anywhere else.
    names = page.run("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert [name for name in names if not name.startswith((page.url, f"blob:{page.url}"))] == []


@pytest.mark.parametrize("steps", [-2, 7])
def test_a_mask_has_the_picture_s_pixels_at_every_zoom(page, filler, steps):
    page.press(("+" if steps > 0 else "-") * abs(steps))
    reach = 20 if steps > 0 else 250
    seen, painted = place(page, [(-reach, -reach / 3), (reach, reach / 2)], steps)
    before = brush_size(page)
    page.press("[" * 16 if steps > 0 else "]")
    size = brush_size(page)
    assert size < 8 if steps > 0 else size > before
    page.drag(seen)
    fill(page)
    assert filler.holes[0].shape == (HEIGHT, WIDTH)
    same(filler.holes[0], painted, size)


def test_a_brush_of_one_pixel_paints_the_pixel_below_it(page, filler):
    page.press("+" * 8)
    page.run(
        "const size = document.getElementById('size'); size.value = 0;"
        "size.dispatchEvent(new Event('input'))"
    )
    assert page.text("#size-text") == "1 px"
    for offset in ((3.1, 2.2), (-4.9, -1.9)):
        page.drag(place(page, [offset], 8)[0])
    fill(page)
    _, points = place(page, [(3.1, 2.2), (-4.9, -1.9)], 8)
    expected = {(int(y), int(x)) for x, y in points}
    assert set(zip(*(axis.tolist() for axis in np.nonzero(filler.holes[0])))) == expected


def test_strokes_are_undone_erased_and_cleared(page, filler):
    first, second = [(-200, -100), (-100, -100)], [(100, 50), (200, 50)]
    for points in (first, second):
        page.drag(place(page, points)[0])
    page.press("z", held=[CONTROL])
    fill(page)
    page.press("c")
    page.press("y", held=[CONTROL])
    fill(page)
    page.press("e")
    page.drag(place(page, [(100, 50), (140, 50)])[0])
    fill(page)
    size = round(WIDTH / 20)
    first, second, erased = (
        covered(place(page, points)[1], size)[0]
        for points in (first, second, [(100, 50), (140, 50)])
    )
    for hole, expected in zip(
        filler.holes, (first, first | second, (first | second) & ~erased), strict=True
    ):
        # Pixels on the very edge are left to rounding.
        assert (hole != expected).sum() < 10
    page.press("b")
    page.press(DELETE)
    assert page.run("return document.getElementById('fill').disabled")
    page.press(ENTER)
    page.press("z", held=[CONTROL])
    fill(page)
    np.testing.assert_array_equal(filler.holes[3], filler.holes[2])


def test_the_picture_moves_and_does_not_get_painted(page, filler):
    page.drag(place(page, [(0, 0), (5, 5)])[0])
    page.press("h")
    page.drag(place(page, [(0, 0), (100, 40)])[0])
    page.press("b")
    page.drag(place(page, [(0, 0), (-30, -20)])[0], button=1)
    page.hold(SPACE)
    page.drag(place(page, [(0, 0), (-30, -10)])[0])
    page.release(SPACE)
    # A stroke where the first one was now paints what is 40, 10 pixels to the left and above.
    page.drag(place(page, [(0, 0), (5, 5)])[0])
    fill(page)
    _, there = place(page, [(0, 0), (5, 5)])
    size = round(WIDTH / 20)
    expected = covered(there, size)[0] | covered(there - [40, 10], size)[0]
    assert (filler.holes[0] != expected).sum() < 10


def test_the_wheel_zooms_at_the_pointer(page, filler):
    ((x, y), *_), ((column, row), *_) = place(page, [(120, -80)])
    for delta in (-100, -100, -100, -100):
        page.wheel(x, y, delta)
    assert page.text("#zoom-text") == "223 %"
    page.drag([(x, y)])
    fill(page)
    size = round(WIDTH / 20)
    expected = covered([(column, row)], size)[0]
    assert (filler.holes[0] != expected).sum() < 10


def test_before_and_after_are_compared(page, filler):
    page.drag(place(page, [(-150, 0), (150, 0)])[0])
    fill(page)
    assert page.run("return document.activeElement.id") == "stage"

    def pixel(x):
        """Colour of the canvas at a point right of the picture's middle."""
        (left, top), *_ = place(page, [(x, 0)])[0]
        box = page.box("#stage")
        return page.run(
            "return [...document.getElementById('picture').getContext('2d')"
            ".getImageData(args[0], args[1], 1, 1).data].slice(0, 3)",
            left - box[0], round(top - box[1]),
        )  # fmt: skip

    assert pixel(100) == [*COLOUR]
    assert pixel(-100) != [*COLOUR]
    page.drag(place(page, [(0, 0), (-140, 30)])[0])
    assert pixel(-100) == [*COLOUR]
    page.run(
        "const slider = document.getElementById('compare'); slider.value = 100;"
        "slider.dispatchEvent(new Event('input'));"
        "await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)))"
    )
    assert pixel(100) != [*COLOUR]
    page.press("c")
    page.wait("document.getElementById('divider').hidden")


def test_a_result_is_kept_and_painted_on(page, filler):
    page.drag(place(page, [(-50, 0)])[0])
    fill(page)
    page.press("k")
    page.wait("document.getElementById('status').textContent.includes('to paint on now')")
    page.drag(place(page, [(50, 0)])[0])
    fill(page)
    assert not (filler.holes[0] & filler.holes[1]).any()
    expected = RGB.copy()
    expected[filler.holes[0] | filler.holes[1]] = COLOUR
    np.testing.assert_array_equal(decoded(saved(page)), expected)


def test_progress_is_shown_and_a_filling_is_cancelled(page, filler):
    filler.go.clear()
    page.drag(place(page, [(0, 0), (50, 0)])[0])
    page.press(ENTER)
    page.wait("document.getElementById('progress-text').textContent.startsWith('Filling, 40 %, ')")
    assert page.run("return document.getElementById('progress').value") == pytest.approx(0.4)
    # No stroke is painted meanwhile, and no second filling begins.
    page.drag(place(page, [(0, 90), (50, 90)])[0])
    page.press(ENTER)
    page.press(ESCAPE)
    page.wait("document.getElementById('status').textContent.startsWith('Cancelled after ')")
    filler.go.set()
    fill(page)
    assert len(filler.holes) == 2
    np.testing.assert_array_equal(*filler.holes)


def test_a_page_that_is_left_cancels_its_filling(page, filler):
    filler.go.clear()
    page.drag(place(page, [(0, 0), (50, 0)])[0])
    page.press(ENTER)
    page.wait("document.getElementById('progress-text').textContent.startsWith('Filling, ')")
    page.open(page.url)
    client = Client(int(page.url.rstrip("/").rpartition(":")[2]))
    opened = client.open(encoded(RGB))["id"]
    end = time.monotonic() + 120
    query = {"width": WIDTH, "height": HEIGHT, "method": "exemplar"}
    path = f"/api/pictures/{opened}/fill"
    while client.json("POST", path, packed(np.eye(HEIGHT, WIDTH)), **query)[0] == 409:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_errors_are_sentences(page, filler, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    page.type("#file", str(tmp_path / "notes.png"))
    page.wait("!document.getElementById('message').hidden")
    text = page.text("#message-text")
    assert text == "notes.png: not a readable picture (unknown format)"
    (complaint,) = page.complaints()
    assert "422" in complaint
    page.press(ESCAPE)
    # The picture before is still there.
    filler.fail_at = 1
    page.drag(place(page, [(0, 0), (50, 0)])[0])
    page.press(ENTER)
    page.wait("!document.getElementById('message').hidden")
    assert page.text("#message-text") == "It could not be filled: boom"
    page.click("#message-close")
    fill(page)


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_pictures_are_pasted_and_dropped(page, filler, way):
    content = base64.b64encode(encoded(RGB[:40, :60])).decode()
    page.run(
        "const bytes = Uint8Array.from(atob(args[0]), (c) => c.charCodeAt(0));"
        "const data = new DataTransfer();"
        "data.items.add(new File([bytes], 'other.png', { type: 'image/png' }));"
        "document.dispatchEvent(args[1] === 'paste'"
        " ? new ClipboardEvent('paste', { clipboardData: data })"
        " : new DragEvent('drop', { dataTransfer: data }))",
        content,
        way,
    )
    page.wait("document.getElementById('file-name').textContent.includes('60 × 40')")
    page.drag(place(page, [(0, 0)])[0])
    fill(page)
    assert filler.holes[0].shape == (40, 60)


def test_methods_and_weights_are_chosen(page, filler):
    def options(name):
        return page.run(
            "return [...document.getElementById(args[0]).options]"
            ".map((one) => [one.text, one.disabled])",
            name,
        )

    assert options("method") == [
        ["exemplar", False],
        ["painter", False],
        ["other (needs weights)", True],
    ]
    assert page.run("return document.getElementById('weights-field').hidden")
    page.type("#method", "painter")
    assert options("weights") == [["faces: faces.pth", False], ["places: a.pth, b.pth", False]]
    page.type("#weights", "places")
    assert page.text("#summary") == "Paints."
    page.run("document.getElementById('seed').value = '12'; document.activeElement.blur()")
    page.drag(place(page, [(0, 0)])[0])
    fill(page)
    assert filler.seeds == [12]
