"""Load of the fused convolution: the pixel that padding shows, and the taps that a mask hides."""

import triton
import triton.language as tl

# Values of PAD.
PADDING = {"zeros": 0, "reflect": 1, "replicate": 2}
_REFLECT, _REPLICATE = tl.constexpr(1), tl.constexpr(2)
# Most taps of a window whose bits fit an int64: when two parts share it, and when one has it.
TAPS_OF_TWO, TAPS_OF_ONE = 31, 63
# Most taps along one axis whose bits fit half an int32, less one.
TAPS_OF_AXIS = 15


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
def _divided(n, by):
    """Quotient below 2**20, and remainder, of n >= 0: a float32 is off by one at most."""
    quotient = (n.to(tl.float32) * (1.0 / by)).to(tl.int32)
    rest = n - quotient * by
    quotient += tl.where(rest >= by, 1, 0) - tl.where(rest < 0, 1, 0)
    return quotient, n - quotient * by


@triton.jit
def positions(first, height, width, some, BLOCK_M: tl.constexpr):
    """Image, row and column of the BLOCK_M pixels from `first` on.

    Only the first takes integer divisions, which are long; the others are a few rows further.
    """
    rows = first // width
    image = tl.zeros((BLOCK_M,), tl.int32)
    y = tl.zeros((BLOCK_M,), tl.int32)
    x = tl.zeros((BLOCK_M,), tl.int32)
    # One pass, which the compiler does not know: what a loop gives is formed by one thread for each
    # pixel and passed on. It would be formed again by every thread that loads or stores the pixel.
    for _ in range(0, some, some):
        further, x = _divided(first % width + tl.arange(0, BLOCK_M), width)
        images, y = _divided(rows % height + further, height)
        image = rows // height + images
    return image, y, x


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
        # Not `&`: Triton 3.9's interpreter would take the scalar for a number and refuse the mask.
        second_there = tl.where(valid_parts == 2, inside, False)
        one = tl.load(at, mask=inside, other=0) != 0
        two = tl.load(at + plane, mask=second_there, other=0) != 0
        # A shift is 64-bit only if its amount is.
        place = tl.zeros((BLOCK_M,), tl.int64) + tap
        bits |= (one.to(tl.int64) << place) | (two.to(tl.int64) << (place + 32))
        first += one.to(tl.float32)
        second += two.to(tl.float32)
    return bits, first, second


@triton.jit
def outside_bits(
    base_y,
    base_x,
    in_m,
    height,
    width,
    kernel_height,
    kernel_width,
    dilation_y,
    dilation_x,
    BLOCK_M: tl.constexpr,
):
    """One bit for each row and column of each pixel's window that lies outside the image.

    Columns from bit 0, rows from bit 16. Bit 31, beyond the window, is always set.
    """
    bits = tl.where(in_m, -2147483648, -1)
    for kx in range(kernel_width):
        x = base_x + kx * dilation_x
        bits |= tl.where((x >= 0) & (x < width), 0, 1 << kx)
    for ky in range(kernel_height):
        y = base_y + ky * dilation_y
        bits |= tl.where((y >= 0) & (y < height), 0, 65536 << ky)
    return bits


@triton.jit
def window_bit(ky, kx, kernel_height):
    """Bits of a tap in `outside_bits`."""
    return tl.where(ky < kernel_height, (1 << kx) | (65536 << ky), -2147483648)


@triton.jit
def mask_bit(ky, kx, channel, kernel_height, kernel_width, split_units):
    """Bit of a tap, for a channel, in `window_bits`."""
    # A shift is 64-bit only if its amount is.
    place = (ky * kernel_width + kx + tl.where(channel >= split_units, 32, 0)).to(tl.int64)
    one = tl.full(place.shape, 1, tl.int64)
    return tl.where(ky < kernel_height, one << place, 0)


@triton.jit
def filters_of(first, filters, COLUMNS: tl.constexpr, GATED: tl.constexpr):
    """The filter of each column from `first` on; columns beyond the last repeat the first filter.

    Features and gates alternate, so that both of an output meet in one thread.
    """
    offs_j = tl.arange(0, COLUMNS)
    if GATED:
        offs_n = first + offs_j // 2
        found = (offs_j % 2) * filters + offs_n
    else:
        offs_n = first + offs_j
        found = offs_n
    return tl.where(offs_n < filters, found, 0)


@triton.jit
def lanes(VECTOR: tl.constexpr, PIECE: tl.constexpr, BLOCK_K: tl.constexpr):
    """Place of each element in its 16 bytes, as runs of PIECE bytes: the most that a copy takes."""
    lane = tl.arange(0, BLOCK_K) % VECTOR
    if PIECE < 16:
        lane = tl.max_contiguous(lane, PIECE * VECTOR // 16)
    return lane


@triton.jit
def writes_planes(in_m, image, first_n, valid_batch):
    """Where a program writes the planes: one does for all outputs, one for a shared mask."""
    own_mask = tl.where(valid_batch > 1, in_m, in_m & (image == 0))
    return tl.where(first_n == 0, own_mask, False)


@triton.jit
def digits(unit, cin_units, kernel_width):
    """Row and column of the tap, and channel, of a unit of a window, as the digits of a number."""
    tap = unit // cin_units
    channel = unit - tap * cin_units
    ky = tap // kernel_width
    return ky, tap - ky * kernel_width, channel


@triton.jit
def moved(ky, kx, channel, step_y, step_x, step_channel, kernel_width, cin_units):
    """The digits of the sum of two numbers, without divisions."""
    channel += step_channel
    carry = channel >= cin_units
    channel -= tl.where(carry, cin_units, 0)
    kx += step_x + carry.to(tl.int32)
    carry = kx >= kernel_width
    kx -= tl.where(carry, kernel_width, 0)
    ky += step_y + carry.to(tl.int32)
    return ky, kx, channel


@triton.jit
def pixel_of(y, x, height, width, doublings, PAD: tl.constexpr):
    """Whether places of a padded image hold a pixel, and which."""
    y = padded(y, height << doublings, PAD)
    x = padded(x, width << doublings, PAD)
    inside = True
    if PAD == 0:
        inside = (y >= 0) & (y < (height << doublings)) & (x >= 0) & (x < (width << doublings))
    return inside, (y >> doublings) * width + (x >> doublings)


@triton.jit
def ratio_of(known, total, SUM: tl.constexpr):
    """Update mask and mask ratio of windows in which so many values are known."""
    update_mask = tl.where(known > 0.0, 1.0, 0.0)
    if SUM:
        mask_ratio = update_mask / tl.where(known > 0.0, known, 1.0)
    else:
        # The public formula adds 1e-8, which vanishes in the rounding of any count but 0.
        mask_ratio = total / (known + 1e-8) * update_mask
    return update_mask, mask_ratio
