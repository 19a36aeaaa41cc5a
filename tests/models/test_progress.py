"""`progress` of completion, of all methods, and the bar that it may be."""

import io
import itertools
import sys

import pytest
import torch
from model_cases import picture, small

from inpaint_ops import progress
from inpaint_ops.exemplar import fill_exemplar
from inpaint_ops.models import Session, list_models


def two_holes(h, w):
    hole = torch.zeros(1, 1, h, w)
    hole[..., 8:14, 8:14] = 1
    hole[..., h - 14 : h - 8, w - 14 : w - 8] = 1
    return hole


class Terminal(io.StringIO):
    def isatty(self):
        return True


def terminal(monkeypatch):
    """Make standard error a terminal on which a bar shows at once.

    Called by the test itself: pytest sets the stream anew between fixtures and tests.
    """
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    monkeypatch.setattr(progress, "_PACE", 0.0)
    return stream


def check_risen(seen, least):
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    assert all(a < b for a, b in itertools.pairwise(seen))
    assert len(seen) >= least


@pytest.mark.filterwarnings("ignore::inpaint_ops.models.HoleNote")
@pytest.mark.parametrize("name", list_models())
def test_progress_of_every_method_rises_and_changes_no_bit(name):
    model = small(name)
    side = model.window_side(max(32, model.minimum))
    size = (side, 3 * side)
    image, hole = picture(1, 3, *size), two_holes(*size)
    hole[..., : side // 2, side : 2 * side] = 1  # it is filled in parts
    seen = []
    result = model.complete(image, hole, window=side, progress=seen.append)
    check_risen(seen, 4)
    assert torch.equal(result, model.complete(image, hole, window=side))


@pytest.mark.filterwarnings("ignore::inpaint_ops.models.HoleNote")
@pytest.mark.parametrize("name", ["context_encoder", "msnps"])
def test_networks_of_one_hole_tell_of_each_hole(name):
    model = small(name)
    seen = []
    image = picture(1, 3, 64, 192)
    model.complete(image, two_holes(64, 192), progress=seen.append)
    check_risen(seen, 3)


def test_nothing_missing_is_done_at_once():
    seen = []
    image = picture(1, 3, 32, 32)
    small("glcic").complete(image, torch.zeros(1, 1, 32, 32), progress=seen.append)
    fill_exemplar(image[:0], torch.zeros(1, 1, 32, 32), progress=seen.append)
    assert seen == [0.0, 1.0, 0.0, 1.0]


def test_a_session_takes_it_too():
    seen = []
    session = Session(small("glcic"), picture(1, 3, 32, 32))
    session.fill(two_holes(32, 32), progress=seen.append)
    assert seen == [0.0, 1.0]


@pytest.mark.parametrize("wrong", [3, "yes", 0.5])
def test_wrong_progress_is_named(wrong):
    image, hole = picture(1, 3, 32, 32), two_holes(32, 32)
    for fill in (small("glcic").complete, fill_exemplar):
        with pytest.raises(TypeError, match=r"progress must be callable .*, True for a bar"):
            fill(image, hole, progress=wrong)


def test_an_error_of_the_function_ends_the_work_and_the_following():
    class Enough(Exception):
        pass

    def stop(fraction):
        if fraction > 0:
            raise Enough

    model = small("glcic")
    image, hole = picture(1, 3, 64, 200), two_holes(64, 200)
    with pytest.raises(Enough):
        model.complete(image, hole, window=64, progress=stop)
    # Nobody follows any more.
    model.complete(image, hole, window=64)
    progress.tell(0.5)


def test_work_inside_counts_for_who_follows_around_it():
    seen = []
    with progress.following(seen.append, "both"):
        for number in range(2):
            with progress.Part(number / 2, (number + 1) / 2), progress.following(None, "one"):
                progress.tell(0.5)
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_the_function_may_do_work_of_its_own():
    seen = []

    def told(fraction):
        seen.append(fraction)
        progress.tell(0.9)

    with progress.following(told, "outer"):
        progress.tell(0.5)
    assert seen == [0.0, 0.5, 1.0]


def test_failed_parts_are_not_told():
    seen = []
    with progress.following(seen.append, "outer"):
        with pytest.raises(ZeroDivisionError), progress.Part(0.0, 0.5):
            1 / 0  # noqa: B018
        progress.tell(0.75)
    assert seen == [0.0, 0.75, 1.0]


def test_the_bar_shows_moves_and_goes(monkeypatch):
    stream = terminal(monkeypatch)
    with progress.bar("photo.png") as move:
        move(0.25)
        text = stream.getvalue()
        assert text.startswith("\rphoto.png [######..................]  25 %, 0:00 left")
    assert stream.getvalue().endswith("\r" + " " * (len(text) - 1) + "\r")


def test_the_bar_escapes_what_would_move_the_cursor(monkeypatch):
    stream = terminal(monkeypatch)
    with progress.bar("a\r\x1b[2Jb") as move:
        move(0.5)
    assert "a??[2Jb" in stream.getvalue()


def test_true_is_a_bar(monkeypatch):
    stream = terminal(monkeypatch)
    image, hole = picture(1, 3, 64, 200), two_holes(64, 200)
    small("glcic").complete(image, hole, window=64, progress=True)
    assert "\rglcic.complete [" in stream.getvalue()


def test_no_bar_where_nobody_would_see_it(monkeypatch):
    image, hole = picture(1, 3, 32, 32), two_holes(32, 32)
    for stream in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(progress, "_PATIENCE", 0.0)
        fill_exemplar(image, hole, progress=True)
        assert stream is None or stream.getvalue() == ""


def test_quick_work_shows_no_bar(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.bar("quick") as move:
        move(0.5)
    assert stream.getvalue() == ""


def test_text_of_the_bar():
    assert progress.line_of("x", 0.0, None) == f"x [{'.' * 24}]   0 %"
    assert progress.line_of("x", 1.0, 0.0) == f"x [{'#' * 24}] 100 %, 0:00 left"
    assert progress.line_of("x", 0.5, 125.4).endswith(" 50 %, 2:05 left")
