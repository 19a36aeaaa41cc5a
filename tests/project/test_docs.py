"""The site of docs/: it builds without a warning, needs no network, and says what the code says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx")
pytest.importorskip("furo")

import messages

from inpaint_ops import ops
from inpaint_ops.models import list_models

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build in a process of its own, as ``make docs`` does."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    command += ["-d", str(out / "doctrees"), str(DOCS), str(out / "html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return out / "html"


def test_every_page_is_built_and_loads_nothing_from_elsewhere(site):
    pages = [p.relative_to(DOCS).with_suffix(".html") for p in DOCS.rglob("*.md")]
    for page in (p for p in pages if p.parts[0] != "templates"):
        text = (site / page).read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=\"([^\"]+)\"", text)
        assert loaded
        for address in loaded:
            assert not re.match(r"(https?:)?//", address), (page, address)
    assert not re.search(
        r"url\((['\"]?)https?:",
        "".join(css.read_text(encoding="utf-8") for css in (site / "_static").rglob("*.css")),
    )


def test_formulas_are_mathml(site):
    text = (site / "operators" / "gated_conv2d.html").read_text(encoding="utf-8")
    assert "<math" in text
    assert "MathJax" not in text


def test_the_search_knows_operators_methods_and_messages(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    for word in ("contextual_attention", "edge_connect", "polar", "interpret"):
        assert word in index


def test_pictures_are_those_of_the_code():
    command = [sys.executable, str(DOCS / "drawing"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run python docs/drawing: {done.stdout}{done.stderr[-2000:]}"


def test_every_operator_and_method_has_a_page():
    parts = {
        "operators": (ops.__all__, ("Formula", "Example", "Cost and memory")),
        "methods": (
            list_models(),
            ("What the paper says", "The network", "Public weights", "Train"),
        ),
    }
    for folder, (names, headings) in parts.items():
        pages = {page.stem for page in (DOCS / folder).glob("*.md")} - {"index"}
        assert pages == set(names)
        for name in names:
            text = (DOCS / folder / f"{name}.md").read_text(encoding="utf-8")
            for heading in headings:
                assert f"\n## {heading}\n" in text, (name, heading)


def test_every_picture_is_shown():
    text = "".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    text += (ROOT / "README.md").read_text(encoding="utf-8")
    for picture in (DOCS / "pictures").iterdir():
        assert f"pictures/{picture.name})" in text, picture.name


def test_messages_are_found_in_the_source():
    found = {message.text for message in messages.every_message()}
    assert len(found) > 400
    assert "gated_conv2d: weight must have an even number of filters, got {}" in found
    assert all((ROOT / m.file).is_file() for m in messages.every_message())


def test_messages_with_hand_written_causes_exist():
    found = {message.text.replace("`", "'") for message in messages.every_message()}
    page = (DOCS / "start" / "troubleshooting.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\*\*`(.*)`\*\*$", page, re.MULTILINE)
    assert len(explained) > 10
    for text in explained:
        assert text in found, text


def test_pages_that_the_code_names_exist():
    files = [*ROOT.glob("*.md"), *ROOT.glob("*.py"), *(ROOT / "csrc").rglob("*.*")]
    for folder in ("inpaint_ops", "models", "kernels", "benchmarks", "tests", "examples"):
        files += [f for f in (ROOT / folder).rglob("*.py") if f.is_file()]
    for file in files:
        text = file.read_text(encoding="utf-8")
        for name in re.findall(r"\bdocs/[\w/]+\.(?:md|jpg|svg)", text):
            template = any((DOCS / "templates").glob(f"*/{name}"))
            assert template or (ROOT / name).is_file(), (file, name)


# For those who work on the package.
INTERNAL = {"BENCH_CLOCK", "COMPLETE", "SANITIZE", "SHOW_BUILD", "TEST_BUILD"}


def test_variables_of_the_environment_are_documented():
    files = [ROOT / "setup.py"]
    for folder in ("inpaint_ops", "models", "kernels", "benchmarks"):
        files += (ROOT / folder).rglob("*.py")
    used = {
        name
        for file in files
        for name in re.findall(r"INPAINT_OPS_([A-Z_]+)\b", file.read_text(encoding="utf-8"))
    }
    pages = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "guides").glob("*.md"))
    assert {"NATIVE_BUILD", "INSTRUCTION_SET", "TUNED"} < used
    for name in used - INTERNAL:
        assert f"`INPAINT_OPS_{name}" in pages, name
