"""Pictures for the pages that say how it works."""

from __future__ import annotations

from canvas import ACCENT, BLUE, GOLD, GREY, HOLE, INK, KNOWN, PALE, WHITE, Canvas


def gram_strips() -> Canvas:
    """A patch product is a sum along a diagonal of pixel products."""
    canvas = Canvas(720, 330, "Products of patches as sums along diagonals of products of pixels")
    fills = {}
    for d in range(3):
        fills[3 + d, 6 + d] = ACCENT
    canvas.grid(60, 60, 9, 14, 18, fills, fill=WHITE)
    canvas.rect(60, 60 + 3 * 18, 14 * 18, 3 * 18, "none", stroke=GOLD, thick=3)
    canvas.text(186, 48, "key pixels")
    canvas.text(44, 141, "query pixels", turn=-90)
    canvas.text(186, 246, "G: each cell is one product of two pixels, C multiply-adds")
    canvas.text(186, 266, "gold: the strip that is in the cache; nothing else exists", size=12)
    canvas.line(330, 130, 420, 130, arrow=True)
    canvas.text(375, 120, "3 adds", size=12)
    canvas.grid(430, 105, 3, 14, 18, {(1, 6): ACCENT}, fill=BLUE)
    canvas.text(556, 92, "scores of patches, a few query rows")
    canvas.line(556, 166, 556, 196, arrow=True)
    canvas.box(470, 200, 172, 46, "best index, or softmax,\nthen forgotten", KNOWN, size=12)
    canvas.text(
        360,
        310,
        "usual: 9 C multiply-adds a pair, and all scores in memory",
        size=12,
        colour=ACCENT,
    )
    return canvas


def winograd() -> Canvas:
    """Transform, multiply, transform back."""
    canvas = Canvas(
        720, 270, "Winograd's algorithm F(4, 3): 36 products for 16 outputs of a 3x3 kernel"
    )
    canvas.grid(20, 60, 6, 6, 20, fill=BLUE)
    canvas.text(80, 46, "6x6 inputs")
    canvas.grid(44, 206, 3, 3, 14, fill=GOLD)
    canvas.text(65, 262, "3x3 kernel", size=12)
    canvas.grid(230, 60, 6, 6, 20, fill="#8fb3dc")
    canvas.text(290, 46, "transformed, adds only")
    canvas.grid(255, 200, 6, 6, 10, fill="#e8c35c")
    canvas.text(285, 266, "packed once", size=12)
    canvas.line(144, 120, 224, 120, arrow=True)
    canvas.line(94, 226, 250, 226, arrow=True)
    canvas.rect(404, 106, 28, 28, WHITE, round=14, stroke=INK)
    canvas.text(418, 125, "x", bold=True)
    canvas.line(354, 120, 400, 120, arrow=True)
    canvas.curve("M318 226C380 226 418 180 418 138", arrow=True)
    canvas.text(440, 190, "36 products a channel,", anchor="start", size=12)
    canvas.text(440, 206, "direct sums need 144", anchor="start", size=12)
    canvas.line(434, 120, 590, 120, arrow=True)
    canvas.text(512, 94, "sum over channels,", size=12)
    canvas.text(512, 110, "transform back", size=12)
    canvas.grid(600, 80, 4, 4, 20, fill=KNOWN)
    canvas.text(640, 66, "4x4 outputs")
    return canvas


def masked_tiles() -> Canvas:
    """Tiles without a known pixel are not computed."""
    canvas = Canvas(720, 300, "A partial convolution skips tiles that see nothing known")
    hole = {(r, c): HOLE for r in range(3, 11) for c in range(4, 13)}
    canvas.grid(30, 50, 14, 16, 14, hole, fill=KNOWN)
    canvas.text(142, 38, "x: pink pixels are never read")
    for row in range(4):
        for column in range(4):
            skipped = row in (1, 2) and column == 2
            x, y = 380 + column * 56, 50 + row * 49
            canvas.rect(x, y, 56, 49, GREY if skipped else GOLD, stroke=INK)
            if skipped:
                canvas.line(x, y, x + 56, y + 49, colour=ACCENT)
                canvas.line(x + 56, y, x, y + 49, colour=ACCENT)
    canvas.text(492, 38, "tiles of y: crossed ones are zero, at no cost")
    canvas.line(268, 150, 370, 150, arrow=True)
    canvas.text(
        360,
        280,
        "inside a tile a missing pixel becomes 0 as it is loaded; "
        "the ratio N / S is applied as it is stored",
        size=12,
    )
    return canvas


def needed() -> Canvas:
    """The need of each layer grows from the hole backwards."""
    canvas = Canvas(720, 240, "Backwards from the hole, each layer needs a little more")
    for number, (grow, words) in enumerate(
        ((5, "input"), (4, "layer 1"), (3, "layer 2"), (2, "layer 3"), (1, "the hole"))
    ):
        x = 24 + number * 140
        low, high = 6 - grow, 6 + grow
        fills = {(r, c): GOLD for r in range(low, high) for c in range(low, high)}
        for r in range(5, 7):
            for c in range(5, 7):
                fills[r, c] = HOLE if number == 4 else fills[r, c]
        canvas.grid(x, 40, 12, 12, 9, fills)
        canvas.text(x + 54, 172, words)
        if number:
            canvas.line(x - 4, 94, x - 28, 94, arrow=True)
    canvas.text(360, 206, "gold: computed; white: not. The arrows point to what is needed.")
    return canvas


def gpu_kernel() -> Canvas:
    """One program computes a block of pixels by filters, and finishes it."""
    canvas = Canvas(720, 300, "A fused convolution on a GPU: one block of the result a program")
    canvas.grid(
        30, 50, 8, 10, 18, {(r, c): BLUE for r in range(2, 4) for c in range(10)}, fill=WHITE
    )
    canvas.text(30, 38, "pixels of x, through the cache", anchor="start")
    canvas.grid(
        270, 50, 8, 4, 18, {(r, c): GOLD for r in range(8) for c in range(1, 3)}, fill=WHITE
    )
    canvas.text(306, 214, "filters")
    canvas.box(
        400,
        60,
        150,
        120,
        "tensor cores:\nsums in registers\n\none step: 16 bytes of\neach pixel at one tap",
        PALE,
        size=12,
    )
    canvas.line(214, 96, 266, 96)
    canvas.line(346, 120, 396, 120, arrow=True)
    canvas.box(580, 60, 120, 120, "mask ratio\nbias\nactivation\ngate", KNOWN, size=12)
    canvas.line(552, 120, 576, 120, arrow=True)
    canvas.line(640, 182, 640, 220, arrow=True)
    canvas.text(640, 238, "written once")
    canvas.text(
        300,
        270,
        "the library's way: its product, then one more pass over the result",
        size=12,
        colour=ACCENT,
    )
    return canvas


def walk() -> Canvas:
    """The way of a call."""
    canvas = Canvas(720, 330, "The way of a call, from a layer to a kernel")
    left = 40
    steps = (
        ("layers/gated_conv2d.py", "holds weights and options", BLUE),
        ("ops/gated_conv2d.py", "checks arguments", BLUE),
        ("ops/dispatch.py", "by device, and for autograd", GOLD),
    )
    for number, (file, words, colour) in enumerate(steps):
        y = 20 + number * 70
        canvas.box(left, y, 230, 46, f"{file}\n{words}", colour, size=12)
        if number:
            canvas.line(left + 115, y - 24, left + 115, y - 2, arrow=True)
    ends = (
        (20, "csrc/convolution", "C++ kernels, chosen at run time", KNOWN, "CPU"),
        (90, "kernels/gated_conv2d.py", "Triton kernels", KNOWN, "GPU"),
        (160, "reference/gated_conv2d.py", "the formula in PyTorch", GREY, "else, and to check"),
        (230, "ops/convolution/cpu_backward.py", "gradients by the same kernels", GOLD, "backward"),
    )
    for y, file, words, colour, when in ends:
        canvas.box(450, y, 250, 46, f"{file}\n{words}", colour, size=12)
        canvas.line(left + 232, 183, 446, y + 23, arrow=True)
        canvas.text(
            364, (183 + y + 23) / 2 - 6 + (12 if y > 160 else 0), when, size=11, colour=ACCENT
        )
    return canvas


PICTURES = (gram_strips, winograd, masked_tiles, needed, gpu_kernel, walk)
