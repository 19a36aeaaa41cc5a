"""A picture of what each operator computes."""

from __future__ import annotations

from canvas import ACCENT, BLUE, GOLD, GREY, HOLE, INK, KNOWN, PALE, WHITE, Canvas

_CELL = 20


def _hole(rows: range, columns: range) -> dict[tuple[int, int], str]:
    return {(row, column): HOLE for row in rows for column in columns}


def _frame(canvas: Canvas, x: float, y: float, side: int, cell: float = _CELL) -> None:
    """Mark a patch."""
    canvas.rect(x, y, side * cell, side * cell, "none", stroke=ACCENT, thick=2.5)


def nearest_patch() -> Canvas:
    """One query patch, the keys that may serve, the best."""
    canvas = Canvas(640, 250, "nearest_patch: each query patch finds the most similar usable key")
    canvas.grid(30, 40, 8, 8, _CELL, fill=BLUE)
    _frame(canvas, 30 + 2 * _CELL, 40 + 3 * _CELL, 3)
    canvas.grid(450, 40, 8, 8, _CELL, _hole(range(3, 6), range(0, 3)), fill=KNOWN)
    _frame(canvas, 450 + 4 * _CELL, 40 + 1 * _CELL, 3)
    canvas.line(134, 126, 526, 92, arrow=True, colour=ACCENT, thick=2)
    canvas.text(110, 222, "query")
    canvas.text(530, 222, "key, pink = not valid")
    canvas.text(320, 66, "score: cosine or -distance")
    canvas.text(320, 150, "compared with every key patch")
    canvas.text(320, 168, "that touches no pink pixel")
    canvas.text(320, 194, "kept: the best index and its score")
    return canvas


def refine_patch() -> Canvas:
    """A guess, the guesses of neighbours, and the windows around them."""
    canvas = Canvas(
        680, 256, "refine_patch: a patch tries its own guess and those of its neighbours"
    )
    fills = {(4, 4): ACCENT, (4, 2): GOLD, (4, 6): GOLD, (2, 4): GOLD, (6, 4): GOLD}
    canvas.grid(30, 40, 9, 9, _CELL, fills, fill=BLUE)
    windows: dict[tuple[int, int], str] = {}
    for row, column in ((2, 2), (3, 6), (6, 3)):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                windows[row + dy, column + dx] = KNOWN
        windows[row, column] = GOLD
    windows[2, 2] = ACCENT
    canvas.grid(430, 40, 9, 9, _CELL, windows)
    for start, end in (((120, 130), (472, 92)), ((80, 130), (552, 112)), ((120, 90), (492, 172))):
        canvas.line(*start, *end, arrow=True)
    canvas.text(120, 240, "the patch and four neighbours")
    canvas.text(520, 240, "candidates: windows around guesses")
    return canvas


def shift_connection() -> Canvas:
    """Features move from the known part of the encoder into the hole."""
    canvas = Canvas(700, 260, "shift_connection: known encoder features move into the hole")
    hole = _hole(range(2, 6), range(2, 6))
    canvas.grid(20, 40, 8, 8, _CELL, hole, fill=WHITE)
    canvas.grid(260, 40, 8, 8, _CELL, hole, fill=KNOWN)
    moved = dict(zip(hole, [KNOWN, "#9fcdae", "#7fb893"] * 6))
    canvas.grid(510, 40, 8, 8, _CELL, moved, fill=WHITE)
    canvas.curve("M70 90C130 10 220 10 268 52", arrow=True, colour=ACCENT, thick=2)
    canvas.text(168, 20, "most similar by cosine", size=12)
    canvas.curve("M274 48C340 0 480 0 568 88", arrow=True, colour=ACCENT, thick=2)
    canvas.text(426, 28, "copied", size=12)
    canvas.text(100, 222, "decoder: a query for each")
    canvas.text(100, 238, "pixel of the hole")
    canvas.text(340, 222, "encoder: known pixels")
    canvas.text(340, 238, "are keys and values")
    canvas.text(590, 222, "shifted, zero outside")
    canvas.text(590, 238, "the hole")
    return canvas


def contextual_attention() -> Canvas:
    """Scores of patches, softmax, paste."""
    canvas = Canvas(720, 260, "contextual_attention: patches compared softly and pasted back")
    canvas.grid(16, 50, 7, 7, _CELL, fill=BLUE)
    _frame(canvas, 16 + 2 * _CELL, 50 + 2 * _CELL, 3)
    canvas.grid(200, 50, 7, 7, _CELL, _hole(range(3, 5), range(3, 5)), fill=KNOWN)
    for x, y in ((200, 50), (260, 50), (200, 130)):
        _frame(canvas, x, y, 3)
    canvas.text(86, 212, "fg: 3x3 patches ask")
    canvas.text(270, 212, "bg: 3x3 patches answer")
    for number, height in enumerate((14, 62, 20, 8, 34, 10)):
        canvas.rect(386 + number * 17, 150 - height, 13, height, ACCENT)
    canvas.line(380, 150, 494, 150)
    canvas.text(437, 176, "softmax of 10 x cosine")
    canvas.text(437, 194, "over all usable keys")
    canvas.line(350, 120, 378, 120, arrow=True)
    canvas.line(500, 120, 530, 120, arrow=True)
    canvas.grid(540, 50, 7, 7, _CELL, fill=PALE)
    for x, y, colour in ((560, 70, KNOWN), (600, 70, "#9fcdae"), (560, 110, "#7fb893")):
        canvas.rect(x, y, 80, 80, colour, stroke=ACCENT)
    canvas.text(712, 212, "4x4 patches of bg, weighted,", anchor="end")
    canvas.text(712, 228, "added, divided by 4", anchor="end")
    return canvas


def id_mrf_loss() -> Canvas:
    """A matrix of similarities, each column a softmax, the best of each row."""
    canvas = Canvas(700, 260, "id_mrf_loss: how well target features are matched by generated ones")
    canvas.grid(20, 56, 4, 4, 18, fill=BLUE)
    canvas.text(56, 146, "generated")
    canvas.grid(20, 160, 4, 4, 18, fill=KNOWN)
    canvas.text(56, 250, "target")
    shades = ("#ffffff", "#ecd9ea", "#d9a6d2", "#b963ad", "#8a1c7c")
    values = [
        [(row * 5 + column * 3 + row * column) % 5 for column in range(8)] for row in range(6)
    ]
    fills = {(r, c): shades[values[r][c]] for r in range(6) for c in range(8)}
    canvas.grid(220, 70, 6, 8, 22, fills)
    canvas.text(308, 38, "generated positions q", size=12)
    canvas.text(308, 56, "each column is a softmax over p", size=12)
    canvas.text(206, 136, "target positions p", size=12, turn=-90)
    canvas.grid(446, 70, 6, 1, 22, {(r, 0): shades[max(values[r])] for r in range(6)})
    canvas.text(457, 56, "greatest of each row", size=12)
    canvas.line(106, 130, 184, 130, arrow=True)
    canvas.text(145, 120, "cosine", size=12)
    canvas.line(402, 136, 440, 136, arrow=True)
    canvas.line(476, 136, 512, 136, arrow=True)
    canvas.box(520, 114, 160, 44, "loss = -log\nof their mean", PALE)
    return canvas


def channelwise_linear() -> Canvas:
    """A matrix of its own for each channel."""
    canvas = Canvas(640, 230, "channelwise_linear: every channel has a matrix of its own")
    for number, colour in enumerate((BLUE, KNOWN, GOLD)):
        y = 40 + number * 60
        canvas.grid(40, y, 3, 3, 15, fill=colour)
        canvas.line(92, y + 22, 190, y + 22, arrow=True)
        canvas.grid(200, y - 2, 4, 12, 12, fill=colour)
        canvas.line(352, y + 22, 440, y + 22, arrow=True)
        canvas.grid(450, y, 3, 3, 15, fill=colour)
        canvas.text(540, y + 27, f"channel {number + 1}", anchor="start")
    canvas.text(62, 26, "H x W pixels")
    canvas.text(272, 26, "all pixels to all pixels")
    canvas.text(472, 26, "result")
    return canvas


def _pipeline(title: str, steps: list[tuple[str, str]], note: str) -> Canvas:
    canvas = Canvas(720, 170, title)
    width = (720 - 60 - 16 * len(steps)) / len(steps)
    canvas.rect(20, 30, 680, 84, PALE, round=8, stroke=ACCENT)
    for number, (words, colour) in enumerate(steps):
        x = 36 + number * (width + 16)
        canvas.box(x, 46, width, 52, words, colour, size=12)
        if number:
            canvas.line(x - 16, 72, x - 2, 72, arrow=True)
    canvas.text(360, 138, note)
    return canvas


def fused_conv2d() -> Canvas:
    """The steps of one pass."""
    steps = [
        ("double\n(nearest)", BLUE),
        ("pad: zeros,\nreflect, repeat", BLUE),
        ("convolution", GOLD),
        ("bias", KNOWN),
        ("activation", KNOWN),
    ]
    return _pipeline(
        "fused_conv2d: five steps, one pass over memory",
        steps,
        "one pass: only x and the weights are read, only y is written",
    )


def gated_conv2d() -> Canvas:
    """Features and gates of one convolution."""
    canvas = Canvas(680, 220, "gated_conv2d: one convolution, features times gates")
    canvas.box(20, 84, 90, 44, "x", BLUE)
    canvas.box(160, 84, 140, 44, "convolution,\n2n filters", GOLD, size=12)
    canvas.line(112, 106, 156, 106, arrow=True)
    for y, words, f in (
        (40, "features: n channels", "activation"),
        (136, "gates: n channels", "sigmoid"),
    ):
        canvas.box(350, y, 100, 44, words.replace(": ", ":\n"), PALE, size=12)
        canvas.line(302, 106, 346, y + 22, arrow=True)
        canvas.box(480, y, 80, 44, f, KNOWN, size=12)
        canvas.line(452, y + 22, 476, y + 22, arrow=True)
        canvas.line(562, y + 22, 596, 106 + (-8 if y < 100 else 8), arrow=True)
    canvas.rect(598, 92, 28, 28, WHITE, round=14, stroke=INK)
    canvas.text(612, 112, "x", bold=True)
    canvas.line(628, 106, 652, 106, arrow=True)
    canvas.text(664, 110, "y")
    canvas.text(340, 208, "features and gates meet in registers, neither is written", size=12)
    return canvas


def fused_conv_transpose2d() -> Canvas:
    """Four small convolutions in place of one over zeros."""
    canvas = Canvas(
        680, 250, "fused_conv_transpose2d: stride 2 splits a 4x4 kernel into four of 2x2"
    )
    colours = (BLUE, KNOWN, GOLD, HOLE)
    phases = {(r, c): colours[2 * (r % 2) + c % 2] for r in range(8) for c in range(8)}
    canvas.grid(30, 60, 4, 4, 24, fill=GREY)
    canvas.text(78, 46, "x")
    canvas.grid(190, 60, 4, 4, 24, phases)
    canvas.text(238, 46, "weight, by parity")
    canvas.line(138, 108, 180, 108, arrow=True)
    for number, colour in enumerate(colours):
        x, y = 340 + 64 * (number % 2), 60 + 56 * (number // 2)
        canvas.grid(x, y, 2, 2, 22, fill=colour)
    canvas.text(394, 46, "four 2x2 kernels")
    canvas.line(296, 108, 330, 108, arrow=True)
    canvas.grid(500, 40, 8, 8, 19, phases)
    canvas.line(462, 108, 494, 108, arrow=True)
    canvas.text(576, 214, "y, by parity")
    canvas.text(240, 236, "no zeros are inserted, and no product with zero is formed", size=12)
    return canvas


def partial_conv2d() -> Canvas:
    """Counting what a window sees."""
    canvas = Canvas(720, 250, "partial_conv2d: the sum over known pixels, scaled up by their share")
    hole = _hole(range(2, 6), range(3, 7))
    canvas.grid(20, 40, 8, 8, _CELL, hole, fill=KNOWN)
    _frame(canvas, 20 + 2 * _CELL, 40 + 1 * _CELL, 3)
    canvas.text(100, 222, "x and valid, pink = hole")
    canvas.grid(
        250, 60, 3, 3, 28, {(1, 1): HOLE, (1, 2): HOLE, (2, 1): HOLE, (2, 2): HOLE}, fill=KNOWN
    )
    canvas.text(292, 48, "one window")
    canvas.text(292, 168, "S = 5 of N = 9 are known")
    canvas.text(292, 188, "sum over these 5, times 9/5")
    canvas.line(188, 100, 242, 100, arrow=True)
    canvas.line(344, 100, 400, 100, arrow=True)
    smaller = _hole(range(3, 5), range(4, 6))
    canvas.grid(410, 50, 8, 8, 16, smaller, fill=GOLD)
    canvas.text(474, 200, "y: nothing known,")
    canvas.text(474, 216, "then 0 without bias")
    canvas.grid(570, 50, 8, 8, 16, smaller, fill=KNOWN)
    canvas.text(634, 200, "valid_out: the hole")
    canvas.text(634, 216, "shrinks layer by layer")
    return canvas


def instance_norm() -> Canvas:
    """The steps of one pass."""
    steps = [
        ("mean and variance\nof each channel", BLUE),
        ("subtract,\ndivide", GOLD),
        ("weight,\nbias", KNOWN),
        ("activation", KNOWN),
        ("add the\nresidual", KNOWN),
    ]
    return _pipeline(
        "instance_norm: each channel to mean 0 and variance 1",
        steps,
        "read once for the statistics, once for the result",
    )


PICTURES = (
    nearest_patch,
    refine_patch,
    shift_connection,
    contextual_attention,
    id_mrf_loss,
    channelwise_linear,
    fused_conv2d,
    gated_conv2d,
    fused_conv_transpose2d,
    partial_conv2d,
    instance_norm,
)
