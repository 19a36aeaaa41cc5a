"""Each of the ten methods learns photographs by heart: losses, gradients and updates together."""

import pytest

from inpaint_ops.benchmarks.learning.overfit import LESSONS, learn
from inpaint_ops.models import list_models


def test_there_is_a_lesson_for_each_method():
    assert sorted(lesson.method for lesson in LESSONS) == list_models()


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.method)
def test_a_method_learns_photographs_by_heart(lesson):
    learned = learn(lesson)
    assert learned.fall >= lesson.falls
    assert learned.after >= learned.before + 3
    # One colour for each hole, even the best one, is not enough.
    assert learned.after >= learned.constant + 2
