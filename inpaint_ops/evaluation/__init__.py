"""How well models fill holes, measured over a list of pictures as the papers do.

The design. The test set is fixed: picture i of the list has one hole, which depends on the seed and
on i alone (`inpaint_ops.data.Samples`). A picture is rounded to 8 bits first, its missing pixels
are blanked, and every model fills the same one. What is measured is what a user would save: known
pixels of the picture, the others of the model, rounded to 8 bits. Each picture and model gives a
row; everything else is made of the rows.

In reading order: `measures` compares one result with its picture; `perceptual` does so by networks
whose files the user gives; `baselines` are fillers without training; `groups` sorts rows by the
share of the hole and its contact with the border; `running` is the loop; `results` holds rows and
makes the summary, `files` writes them, `page` makes the HTML page.
"""

from inpaint_ops.evaluation.baselines import BASELINES, baseline
from inpaint_ops.evaluation.files import check_folder, write_results
from inpaint_ops.evaluation.measures import MEASURES, compare
from inpaint_ops.evaluation.perceptual import (
    FrechetFeatures,
    PerceptualDistance,
    frechet_distance,
)
from inpaint_ops.evaluation.results import Results, Row
from inpaint_ops.evaluation.running import Fill, ModelFailedError, evaluate

__all__ = [
    "BASELINES",
    "MEASURES",
    "Fill",
    "FrechetFeatures",
    "ModelFailedError",
    "PerceptualDistance",
    "Results",
    "Row",
    "baseline",
    "check_folder",
    "compare",
    "evaluate",
    "frechet_distance",
    "write_results",
]
