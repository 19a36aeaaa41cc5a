"""The command ``serve``: a page to paint holes on, on this machine alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inpaint_ops import program
from inpaint_ops.cli.devices import device_option, find_device
from inpaint_ops.cli.messages import failures, notes

if TYPE_CHECKING:
    import torch

    from inpaint_ops.cli.fillers import Filler, FillerChoice
    from inpaint_ops.serving import Method, PageServer

# Seconds that a filling has to notice that it is cancelled when the program ends.
_PATIENCE = 0.5


def _parse_pairs(
    _context: click.Context, _parameter: click.Parameter, values: Sequence[str]
) -> list[tuple[str, str]]:
    pairs = []
    for text in values:
        key, separator, value = text.partition("=")
        name, colon, label = key.partition(":")
        if not separator or not name or not value or (colon and not label):
            raise click.BadParameter(f"expected METHOD=VALUE or METHOD:LABEL=VALUE, got {text!r}")
        pairs.append((key, value))
    return pairs


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="Port on 127.0.0.1; 0 takes a free one.",
)
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the browser.")
@click.option(
    "--weights",
    multiple=True,
    callback=_parse_pairs,
    metavar="METHOD[:LABEL]=FILE",
    help="Offer a method with these weights; repeated for more methods, for more weights of one"
    " under labels, and where each network has a file.",
)
@click.option(
    "--layout",
    "layouts",
    multiple=True,
    callback=_parse_pairs,
    metavar="METHOD[:LABEL]=LAYOUT",
    help="Layout of the weights, where a file can be read in two ways.",
)
@click.option(
    "--features",
    multiple=True,
    callback=_parse_pairs,
    metavar="METHOD[:LABEL]=FILE",
    help="VGG weights in torchvision's layout (msnps).",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    callback=_parse_pairs,
    metavar="METHOD[:LABEL]=NAME=VALUE",
    help="An option of the model; can be repeated.",
)
@device_option
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: torch's]")
def serve(
    port: int,
    open_browser: bool,
    weights: list[tuple[str, str]],
    layouts: list[tuple[str, str]],
    features: list[tuple[str, str]],
    options: list[tuple[str, str]],
    device: str,
    threads: int | None,
) -> None:
    """Serve a page to paint holes on and to fill them, for this machine alone.

    \b
    inpaint-ops serve --open
    inpaint-ops serve --weights deepfill_v2=states.pth --weights deepfill_v2:faces=celeba.pth

    The page opens pictures in the browser and saves filled ones as the browser saves files.
    Nothing leaves this machine; Ctrl-C ends the server.
    """  # noqa: D301
    choices = _choices(weights, layouts, features, options)
    place = find_device(device)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with failures():
        server = _listen(_methods(choices, place), port)
    click.echo(f"{server.url} is the page, for this machine alone; Ctrl-C ends the server")
    if open_browser:
        import webbrowser

        webbrowser.open(server.url)
    try:
        server.serve_forever()
    finally:
        if not server.stop(_PATIENCE) and program.is_program():
            # Its thread is inside a kernel. Nothing is written, so nothing is lost.
            program.flush_output()
            os._exit(program.report_interrupt())


def _choices(
    weights: list[tuple[str, str]],
    layouts: list[tuple[str, str]],
    features: list[tuple[str, str]],
    options: list[tuple[str, str]],
) -> dict[str, FillerChoice]:
    """Return the choices of method and weights by their keys, in the order they were given."""
    from inpaint_ops.cli.fillers import FillerChoice

    keys = list(dict.fromkeys(key for key, _ in weights))
    for option, pairs in (("--layout", layouts), ("--features", features), ("--option", options)):
        for key, _ in pairs:
            if key not in keys:
                raise click.UsageError(f"{option} {key}: there is no --weights {key}=FILE")
    choices = {}
    for key in keys:
        layout, vgg = (_last(pairs, key) for pairs in (layouts, features))
        choice = FillerChoice(
            model=key.partition(":")[0],
            weights=tuple(Path(value) for name, value in weights if name == key),
            layout=layout or "auto",
            features=None if vgg is None else Path(vgg),
            options=tuple(value for name, value in options if name == key),
        )
        try:
            choice.check()
        except ValueError as exc:
            raise click.UsageError(str(exc)) from exc
        for path in (*choice.weights, *([choice.features] if choice.features else [])):
            if not path.is_file():
                raise click.UsageError(f"{key}: {path} is no file")
        choices[key] = choice
    return choices


def _last(pairs: list[tuple[str, str]], key: str) -> str | None:
    found = [value for name, value in pairs if name == key]
    return found[-1] if found else None


def _methods(choices: dict[str, FillerChoice], device: torch.device | None = None) -> list[Method]:
    """Return what the page offers: fillers without weights, `choices`, and what lacks weights."""
    from inpaint_ops.cli.fillers import FILLERS, FillerChoice
    from inpaint_ops.models import list_models, model_class
    from inpaint_ops.serving import Method

    summary = "Fills with copies from the rest of the picture; needs no weights."
    methods = [Method(name, summary, _noting(FillerChoice(name), device)) for name in FILLERS]
    for name in list_models():
        summary = (model_class(name).__doc__ or "").partition("\n")[0]
        given = {k: c for k, c in choices.items() if c.model == name}
        for key, choice in given.items():
            files = tuple(path.name for path in choice.weights)
            label = key.partition(":")[2]
            methods.append(Method(name, summary, _noting(choice, device), label, files))
        if not given:
            methods.append(Method(name, summary, None))
    return methods


def _noting(choice: FillerChoice, device: torch.device | None) -> Callable[[], Filler]:
    def build() -> Filler:
        with notes():
            return choice.build("auto", device=device)

    return build


def _listen(methods: Sequence[Method], port: int) -> PageServer:
    import errno

    from inpaint_ops.images.formats import pillow
    from inpaint_ops.serving import PageServer

    # The page is of no use without it; better said now than on the first picture.
    pillow()
    try:
        return PageServer(methods, port)
    except OSError as exc:
        if exc.errno in (errno.EADDRINUSE, errno.EACCES):
            why = program.reason(exc)
            raise OSError(f"port {port}: {why}; --port 0 takes a free one") from exc
        raise
