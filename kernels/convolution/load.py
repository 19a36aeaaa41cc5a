"""Load of the fused convolution: the pixel that padding shows, and the taps that a mask hides."""

import triton
import triton.language as tl

# Values of PAD.
PADDING = {"zeros": 0, "reflect": 1, "replicate": 2}
_REFLECT, _REPLICATE = tl.constexpr(1), tl.constexpr(2)
# Most taps of a window whose bits fit an int64: when two parts share it, and when one has it.
TAPS_OF_TWO, TAPS_OF_ONE = 31, 63


@triton.jit
def padded(i, size, PAD: tl.constexpr):
    """Pixel that the padding shows at i; may still lie outside, where the caller masks it."""
    if PAD == _REFLECT:
        # Not abs: only through where does the compiler see that i is constant along 16 bytes.
        i = tl.where(i < 0, -i, i)
        i = tl.where(i >= size, 2 * size - 2 - i, i)
    elif PAD == _REPLICATE:
        i = tl.where(i < 0, 0, i)
        i = tl.where(i >= size, size - 1, i)
    return i


@triton.jit
def window_bits(
    valid_ptr,
    image,
    base_y,
    base_x,
    in_m,
    height,
    width,
    taps,
    kernel_width,
    dilation_y,
    dilation_x,
    valid_parts,
    valid_batch,
    BLOCK_M: tl.constexpr,
):
    """One bit for each tap of each pixel's window that is valid, and how many are, for two parts.

    The bits of the second part begin at bit 32.
    """
    bits = tl.zeros((BLOCK_M,), tl.int64)
    first = tl.zeros((BLOCK_M,), tl.float32)
    second = tl.zeros((BLOCK_M,), tl.float32)
    plane = height * width
    image_of_mask = tl.where(valid_batch == 1, 0, image).to(tl.int64)
    base = valid_ptr + image_of_mask * valid_parts * plane
    for tap in tl.range(0, taps, loop_unroll_factor=4):
        ky = tap // kernel_width
        y = base_y + ky * dilation_y
        x = base_x + (tap - ky * kernel_width) * dilation_x
        inside = in_m & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        at = base + y * width + x
        one = tl.load(at, mask=inside, other=0) != 0
        two = tl.load(at + plane, mask=inside & (valid_parts == 2), other=0) != 0
        # A shift is 64-bit only if its amount is.
        place = tl.zeros((BLOCK_M,), tl.int64) + tap
        bits |= (one.to(tl.int64) << place) | (two.to(tl.int64) << (place + 32))
        first += one.to(tl.float32)
        second += two.to(tl.float32)
    return bits, first, second
