"""README and docs/: snippets run; commands, options, links and figures exist."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import inpaint_ops
from inpaint_ops.benchmarks import options
from inpaint_ops.cli.commands import cli
from inpaint_ops.models import list_models
from inpaint_ops.training import read_config

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    page.relative_to(ROOT).as_posix(): page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "templates" not in page.parts
}
TEXTS = {name: page.read_text(encoding="utf-8") for name, page in PAGES.items()}
README = TEXTS["README.md"]


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


SNIPPETS = [
    pytest.param(code, id=f"{name}-{number}")
    for name, text in TEXTS.items()
    for number, code in enumerate(blocks(text, "python"))
]


def commands():
    """(page, command line) of shell blocks and of commands inside a sentence."""
    for name, text in TEXTS.items():
        for block in blocks(text, "sh"):
            for line in block.splitlines():
                yield from ((name, part.strip()) for part in line.split("&&"))
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        for code in re.findall(r"`([^`]+)`", prose):
            if re.match(r"(make|inpaint-ops|pip|python) ", code):
                yield name, code


COMMANDS = sorted(set(commands()))


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippets_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})


def test_every_code_block_is_run_or_checked():
    for name, text in TEXTS.items():
        languages = re.findall(r"^```(.*)$", text, re.MULTILINE)[::2]
        generated = {"{eval-rst}", "{include} ../CONTRIBUTING.md", "{include} ../CHANGELOG.md"}
        assert set(languages) <= {"python", "sh", "toml"} | generated, name


def test_configurations_are_those_of_the_trainer(tmp_path):
    found = [block for text in TEXTS.values() for block in blocks(text, "toml")]
    assert found
    for block in found:
        (tmp_path / "run.toml").write_text(block, encoding="utf-8")
        read_config("deepfill_v2", tmp_path / "run.toml")


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_exist(page, line):
    program, *arguments = shlex.split(line)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert next(a for a in arguments if "=" not in a) in targets
    elif program == "inpaint-ops":
        check_command(*arguments)
    elif program == "accelerate":
        start = arguments.index("-m")
        assert (arguments[0], arguments[start + 1]) == ("launch", "inpaint_ops.cli")
        check_command(*arguments[start + 2 :])
    elif program == "pip":
        assert arguments[0] == "install"
        extras = re.findall(r"\[(.*?)\]", " ".join(arguments))
        for extra in ",".join(extras).split(",") if extras else ():
            assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    elif arguments[0].startswith("examples/"):
        assert (ROOT / arguments[0]).is_file()
    else:
        assert (program, arguments[0]) == ("python", "-m")
        spec = find_spec(arguments[1])
        assert spec is not None
        if arguments[1] == "inpaint_ops.benchmarks":
            check_benchmark(arguments[2:])
            return
        source = Path(spec.origin).read_text(encoding="utf-8")
        for argument in arguments[2:]:
            assert not argument.startswith("-") or f'"{argument}"' in source, argument


def check_command(name, *arguments):
    command = cli.commands[name]
    if name == "bench":
        check_benchmark(arguments)
        return
    known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
    for argument in arguments:
        if argument.startswith("-"):
            assert argument in known, argument


def check_benchmark(arguments):
    if "--help" not in arguments:
        options.parse([*arguments, "--list"])


def test_options_in_prose_exist():
    known = {option for c in cli.commands.values() for p in c.params for option in p.opts}
    known.add("--help")
    for program in (
        "benchmarks/options.py",
        "benchmarks/gpu/check.py",
        "benchmarks/learning/compare.py",
    ):
        known |= set(re.findall(r'"(--[\w-]+)"', (ROOT / program).read_text()))
    for name, text in TEXTS.items():
        for option in re.findall(r"`(--[\w-]+)[ `]", text):
            assert option in known, f"{name}: {option}"


def whole(page):
    """A page with the file that it includes."""
    text = page.read_text(encoding="utf-8")
    for included in re.findall(r"^```\{include\} (.*)$", text, re.MULTILINE):
        text += (page.parent / included).read_text(encoding="utf-8")
    return text


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)]+)\)", TEXTS[name]):
        if target.startswith("https://"):
            continue
        file, _, heading = target.partition("#")
        page = (PAGES[name].parent / file).resolve() if file else PAGES[name]
        assert page.is_file(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", whole(page), re.MULTILINE)
            assert heading in {title.lower().replace(" ", "-") for title in titles}, target


def test_the_tests_that_a_page_names_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", "".join(TEXTS.values()))
    assert named
    for file, test in named:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not test or re.search(rf"^def {test}\(", text, re.MULTILINE), (file, test)


def test_readme_is_short_and_its_figures_are_those_of_the_long_tables():
    assert len(README.splitlines()) <= 120
    assert len(blocks(README, "python")) == 3
    assert len(re.findall(r"^!\[", README, re.MULTILINE)) == 1
    rows = re.findall(r"^\| `.*\d .*\|$", README, re.MULTILINE)
    assert 0 < len(rows) <= 12
    long = TEXTS["docs/measured.md"]
    for row in rows:
        method = re.fullmatch(r"\| (`\w+`) 512x512 picture \| (\S+) \| (\S+) \|", row)
        if method:
            name, one, two = method.groups()
            assert re.search(rf"^\| {name} \| .* \| {one} / {two} \| [^|]* \|$", long, re.MULTILINE)
        else:
            assert row in long.splitlines()


def test_tables_name_every_operator_and_method():
    for name in inpaint_ops.ops.__all__:
        assert f"`{name}`" in TEXTS["docs/operators/index.md"], name
    first = TEXTS["docs/methods/index.md"].split("\n## ")[0]
    listed = re.findall(r"^\| \[`(\w+)`\]", first, re.MULTILINE)
    assert sorted(listed) == list_models()
