"""Picture files: every kind of pixel there and back, metadata, damage, atomic writing."""

import io
import os
import stat
import struct
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from inpaint_ops.images import Photo, load_hole, load_photo, save_hole

HEIGHT, WIDTH = 6, 5
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = RGB[..., 0]
GREY16 = RNG.integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16)
ALPHA = RNG.choice(np.array([0, 77, 255], np.uint8), (HEIGHT, WIDTH))
RGBA = np.dstack([RGB, ALPHA])
LA = np.dstack([GREY, ALPHA])
HOLE = torch.zeros(1, 1, HEIGHT, WIDTH, dtype=torch.bool)
HOLE[..., 1:4, 2:4] = True


def write(path, pixels, **options):
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, **options)
    return path


def read(path):
    with Image.open(path) as picture:
        return np.array(picture)


def palette_picture():
    return Image.fromarray(RGB).quantize(7)


# -- loading


@pytest.mark.parametrize(
    ("suffix", "pixels"),
    [
        pytest.param(suffix, pixels, id=f"{name}-{suffix[1:]}")
        for name, pixels, suffixes in (
            ("grey", GREY, (".png", ".tif", ".bmp", ".pgm")),
            ("grey16", GREY16, (".png", ".tif", ".pgm")),
            ("grey-alpha", LA, (".png", ".tif")),
            ("rgb", RGB, (".png", ".tif", ".webp", ".bmp", ".ppm")),
            ("rgba", RGBA, (".png", ".tif", ".webp")),
        )
        for suffix in suffixes
    ],
)
def test_lossless_round_trip_keeps_known_pixels(tmp_path, suffix, pixels):
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    photo = load_photo(write(tmp_path / f"in{suffix}", pixels, **options))
    stored = pixels if pixels.ndim == 3 else pixels[..., None]
    assert photo.pixels.dtype == pixels.dtype
    np.testing.assert_array_equal(photo.pixels, stored)

    photo.filled(torch.full((1, 3, HEIGHT, WIDTH), 0.5), HOLE).save(tmp_path / f"out{suffix}")
    again = load_photo(tmp_path / f"out{suffix}").pixels
    expected = stored.copy()
    colours = 1 if stored.shape[2] < 3 else 3
    middle = 128 if pixels.dtype == np.uint8 else 32768  # 127.5 and 32767.5 round to even
    expected[HOLE[0, 0].numpy(), :colours] = middle
    np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".bmp", ".ppm", ".tga"])
def test_wide_picture(tmp_path, suffix):
    # Some decoders keep the bytes a row where others keep the depth.
    wide = np.tile(RGB, (1, 150, 1))
    options = {"lossless": True} if suffix == ".webp" else {}
    photo = load_photo(write(tmp_path / f"wide{suffix}", wide, **options))
    np.testing.assert_array_equal(photo.pixels, wide)


def test_bitmap_with_16_bits_a_pixel(tmp_path):
    # 5 + 6 + 5 bits: less than 8 a channel.
    header = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    body = header + masks + struct.pack("<HH", 0xF800, 0x07E0)
    content = b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, 14 + 40 + 12) + body
    (tmp_path / "a.bmp").write_bytes(content)
    photo = load_photo(tmp_path / "a.bmp")
    assert photo.pixels.tolist() == [[[255, 0, 0], [0, 255, 0]]]


def test_one_bit_picture_becomes_grey(tmp_path):
    bits = GREY > 128
    photo = load_photo(write(tmp_path / "bits.png", bits))
    np.testing.assert_array_equal(photo.pixels[..., 0], bits * np.uint8(255))


@pytest.mark.parametrize("suffix", [".png", ".gif", ".bmp"])
def test_palette_becomes_rgb(tmp_path, suffix):
    picture = palette_picture()
    photo = load_photo(write(tmp_path / f"p{suffix}", picture))
    np.testing.assert_array_equal(photo.pixels, np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("transparency", [3, bytes([255, 128, 0, 0])], ids=["index", "table"])
def test_palette_with_transparency_becomes_rgba(tmp_path, transparency):
    picture = palette_picture()
    photo = load_photo(write(tmp_path / "p.png", picture, transparency=transparency))
    table = [255] * 256
    if isinstance(transparency, int):
        table[transparency] = 0
    else:
        table[:4] = transparency
    np.testing.assert_array_equal(photo.pixels[..., :3], np.asarray(picture.convert("RGB")))
    np.testing.assert_array_equal(
        photo.pixels[..., 3], np.array(table, np.uint8)[np.asarray(picture)]
    )


@pytest.mark.parametrize(
    ("pixels", "key"), [(GREY, int(GREY[0, 0])), (RGB, tuple(int(v) for v in RGB[0, 0]))]
)
def test_transparent_colour_becomes_alpha(tmp_path, pixels, key):
    photo = load_photo(write(tmp_path / "key.png", pixels, transparency=key))
    is_key = (pixels.reshape(HEIGHT, WIDTH, -1) == np.array(key)).all(-1)
    np.testing.assert_array_equal(photo.alpha_hole()[0, 0].numpy(), is_key)
    colours = pixels.reshape(HEIGHT, WIDTH, -1)
    np.testing.assert_array_equal(photo.pixels[..., : colours.shape[2]], colours)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_reset(tmp_path, orientation, suffix):
    # Where the stored row 0 and column 0 lie in the upright picture (EXIF 2.32, tag 274).
    upright = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: np.rot90,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    source = write(tmp_path / f"in{suffix}", RGB, exif=exif.tobytes(), dpi=(300, 150))
    photo = load_photo(source)
    with Image.open(source) as stored:
        # A TIFF is turned by Pillow itself; the others give the pixels as stored.
        pixels = RGB if suffix == ".tif" else np.asarray(stored)
    np.testing.assert_array_equal(photo.pixels, upright(pixels))
    assert photo.dpi == pytest.approx((150, 300) if orientation > 4 else (300, 150), abs=0.02)

    photo.save(tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as saved:
        assert saved.getexif()[0x0112] == 1
        assert saved.getexif()[0x010F] == "maker"
        assert saved.size == (photo.size[1], photo.size[0])


# -- metadata


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_metadata_survives(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x013B] = "artist"
    exif.get_ifd(0x8769)[0x9003] = "2020:02:03 04:05:06"
    exif.get_ifd(0x8825)[1] = "N"
    profile = b"not a real profile" * 20
    write(tmp_path / f"in{suffix}", RGB, exif=exif.tobytes(), icc_profile=profile, dpi=(300, 300))
    load_photo(tmp_path / f"in{suffix}").save(tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as saved:
        assert saved.info["icc_profile"] == profile
        assert saved.getexif()[0x013B] == "artist"
        assert saved.getexif().get_ifd(0x8769)[0x9003] == "2020:02:03 04:05:06"
        assert saved.getexif().get_ifd(0x8825)[1] == "N"
        if suffix != ".webp":
            assert saved.info["dpi"] == pytest.approx((300, 300), abs=0.01)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_no_metadata_appears(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x010F] = "maker"
    write(tmp_path / f"in{suffix}", RGB, exif=exif.tobytes())
    for out in (".jpg", ".png", ".tif", ".webp", ".bmp"):
        photo = load_photo(tmp_path / f"in{suffix}")
        assert photo.dpi is None
        photo.save(tmp_path / f"out{out}")
        with Image.open(tmp_path / f"out{out}") as saved:
            tags = set(saved.getexif())
            # No GPS, EXIF or orientation entry; the resolution is that of no file.
            assert not tags & {0x8825, 0x8769, 0x0112, 282, 283}
            assert (0x010F in tags) == (out != ".bmp")
        assert load_photo(tmp_path / f"out{out}").dpi is None


def test_tags_of_a_turned_photo_do_not_make_a_directory(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker"
    load_photo(write(tmp_path / "in.jpg", RGB, exif=exif)).save(tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as saved:
        assert set(saved.getexif()) == {0x0112, 0x010F}


def test_interoperability_directory_survives_or_goes(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0x9003: "2020:02:03 04:05:06", 0xA005: {1: "R98"}})
    source = write(tmp_path / "in.jpg", RGB, exif=exif)
    for suffix in (".jpg", ".png", ".webp", ".tif"):
        load_photo(source).save(tmp_path / f"out{suffix}")
        with Image.open(tmp_path / f"out{suffix}") as saved:
            inside = saved.getexif().get_ifd(0x8769)
            assert inside[0x9003] == "2020:02:03 04:05:06"
            if suffix == ".tif":
                assert 0xA005 not in inside  # an offset into the old file
            else:
                assert saved.getexif().get_ifd(0xA005)[1] == "R98"


def test_resolution_of_a_webp_is_in_its_exif(tmp_path):
    source = write(tmp_path / "in.png", RGB, dpi=(300, 150))
    load_photo(source).save(tmp_path / "a.webp")
    photo = load_photo(tmp_path / "a.webp")
    # A PNG counts in whole pixels a metre.
    assert photo.dpi == pytest.approx((300, 150), abs=0.02)
    photo.save(tmp_path / "b.webp")
    assert load_photo(tmp_path / "b.webp").dpi == pytest.approx(photo.dpi, abs=1e-4)
    assert load_photo(write(tmp_path / "c.tif", RGB, dpi=(72, 72))).dpi == (72, 72)


def test_comment_and_colour_chunks_survive(tmp_path):
    load_photo(write(tmp_path / "in.jpg", RGB, comment=b"hello")).save(tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as saved:
        assert saved.info["comment"] == b"hello"
    chunks = {b"sRGB": b"\1", b"gAMA": struct.pack(">I", 45455), b"cHRM": bytes(range(32))}
    info = PngImagePlugin.PngInfo()
    for name, content in chunks.items():
        info.add(name, content)
    info.add_itxt("Title", "Gruß", lang="de", tkey="Titel")
    load_photo(write(tmp_path / "in.png", RGB, pnginfo=info)).save(tmp_path / "out.png")
    content = (tmp_path / "out.png").read_bytes()
    for name, chunk in chunks.items():
        assert name + chunk in content
    with Image.open(tmp_path / "out.png") as saved:
        assert (saved.text["Title"].lang, saved.text["Title"].tkey) == ("de", "Titel")


def test_exif_that_a_jpeg_cannot_hold_is_refused_before_the_work(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "x" * 70_000
    photo = load_photo(write(tmp_path / "in.png", RGB, exif=exif))
    with pytest.raises(ValueError, match="JPEG holds at most 65533 bytes of EXIF"):
        photo.check_save(tmp_path / "out.jpg")
    photo.check_save(tmp_path / "out.png")


def test_thumbnail_is_dropped(tmp_path):
    # The thumbnail still shows what the hole is to remove. Two directories: IFD0 with a maker,
    # IFD1 with the offset and length of the "thumbnail".
    secret = b"\xff\xd8secret\xff\xd9"
    ifd0 = struct.pack("<HHHI4sI", 1, 0x010F, 2, 4, b"abc\0", 26)
    ifd1 = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(secret), 0)
    block = b"Exif\0\0" + b"II*\0\x08\0\0\0" + ifd0 + ifd1 + secret
    source = write(tmp_path / "in.jpg", RGB, exif=block)
    assert b"secret" in source.read_bytes()
    load_photo(source).save(tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as saved:
        assert saved.getexif()[0x010F] == "abc"
    assert b"secret" not in (tmp_path / "out.jpg").read_bytes()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_damaged_exif_does_not_refuse_the_picture(tmp_path):
    source = write(tmp_path / "in.jpg", RGB, exif=b"Exif\0\0" + b"II*\0\xff\xff\xff\x7f")
    photo = load_photo(source)
    assert (photo.size, photo.exif) == ((HEIGHT, WIDTH), b"")


def test_png_text_survives_but_not_old_metadata(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "ärger")
    info.add_text("XML:com.adobe.xmp", "<tiff:Orientation>1</tiff:Orientation>")
    load_photo(write(tmp_path / "in.png", RGB, pnginfo=info)).save(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as saved:
        assert saved.text == {"Title": "ärger"}


def test_tiff_compression_is_kept_only_if_lossless(tmp_path):
    write(tmp_path / "lzw.tif", RGB, compression="tiff_lzw")
    load_photo(tmp_path / "lzw.tif").save(tmp_path / "out.tif")
    with Image.open(tmp_path / "out.tif") as saved:
        assert saved.info["compression"] == "tiff_lzw"
    write(tmp_path / "jpeg.tif", RGB, compression="jpeg")
    load_photo(tmp_path / "jpeg.tif").save(tmp_path / "out.tif")
    with Image.open(tmp_path / "out.tif") as saved:
        assert saved.info["compression"] == "raw"


def test_jpeg_is_written_at_high_quality_without_subsampling(tmp_path):
    smooth = np.tile(np.linspace(0, 255, 32, dtype=np.uint8)[:, None, None], (1, 32, 3))
    load_photo(write(tmp_path / "in.png", smooth)).save(tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as saved:
        assert [layer[1:3] for layer in saved.layer] == [(1, 1)] * 3
    assert np.abs(read(tmp_path / "out.jpg").astype(int) - smooth).max() <= 3


# -- tensors


@pytest.mark.parametrize("pixels", [GREY[..., None], GREY16[..., None], LA, RGB, RGBA])
def test_image_tensor(pixels):
    photo = Photo(pixels)
    image = photo.image()
    assert (image.shape, image.dtype) == ((1, 3, HEIGHT, WIDTH), torch.float32)
    assert image.is_contiguous()
    colours = pixels[..., :1] if pixels.shape[2] < 3 else pixels[..., :3]
    expected = np.broadcast_to(colours / photo.levels, (HEIGHT, WIDTH, 3)).transpose(2, 0, 1)
    np.testing.assert_allclose(image[0].numpy(), expected, rtol=1e-6)
    everything = torch.ones(1, 1, HEIGHT, WIDTH)
    np.testing.assert_array_equal(photo.filled(image, everything).pixels, pixels)


def test_filled_clips_rounds_and_reads_only_the_hole():
    image = torch.full((1, 3, HEIGHT, WIDTH), float("nan"))
    image[0, :, 1, 2] = torch.tensor([-0.3, 1.7, 100.4 / 255])
    hole = torch.zeros(1, 1, HEIGHT, WIDTH)
    hole[..., 1, 2] = 1
    expected = RGB.copy()
    expected[1, 2] = (0, 255, 100)
    photo = Photo(RGB.copy())
    np.testing.assert_array_equal(photo.filled(image, hole).pixels, expected)
    np.testing.assert_array_equal(photo.pixels, RGB)
    with pytest.raises(ValueError, match="finite inside the hole"):
        photo.filled(image, torch.ones_like(hole))


def test_alpha_as_hole_becomes_opaque_there_only():
    photo = Photo(RGBA)
    hole = photo.alpha_hole()
    np.testing.assert_array_equal(hole[0, 0].numpy(), ALPHA == 0)
    done = photo.opaque(hole).filled(torch.ones(1, 3, HEIGHT, WIDTH), hole).pixels
    assert (done[ALPHA == 0] == 255).all()
    np.testing.assert_array_equal(done[ALPHA != 0], RGBA[ALPHA != 0])
    with pytest.raises(ValueError, match="no alpha channel"):
        Photo(RGB).alpha_hole()


@pytest.mark.parametrize(
    ("image", "hole", "error", "text"),
    [
        (torch.zeros(1, 3, 2, 2), HOLE, ValueError, r"image must have shape \(1, 3, 6, 5\)"),
        (torch.zeros(1, 3, 6, 5, dtype=torch.uint8), HOLE, TypeError, "float tensor, got torch"),
        (torch.zeros(1, 3, 6, 5), HOLE[0], ValueError, r"hole must have shape \(1, 1, 6, 5\)"),
        (torch.zeros(1, 3, 6, 5), np.zeros(3), TypeError, "hole must be a tensor, got ndarray"),
    ],
)
def test_filled_refuses_wrong_arguments(image, hole, error, text):
    with pytest.raises(error, match=text):
        Photo(RGB).filled(image, hole)


def test_photo_refuses_wrong_pixels():
    with pytest.raises(TypeError, match="pixels must be a uint8 or uint16 array, got float32"):
        Photo(RGB.astype(np.float32))
    with pytest.raises(ValueError, match=r"channels in \(1,\) for uint16, got \(6, 5, 3\)"):
        Photo(RGB.astype(np.uint16))


# -- refused files


def png_16_bit_rgb():
    def chunk(name, body):
        import zlib

        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    import zlib

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = zlib.compress(b"\0" + bytes(range(12)))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def encoded(pixels, form, **options):
    stream = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(stream, form, **options)
    return stream.getvalue()


def animation(form):
    other = Image.fromarray(255 - RGB)
    return encoded(RGB, form, save_all=True, append_images=[other])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(b"", "is empty", id="zero-bytes"),
        pytest.param(b"hello there, no picture", "not a readable picture", id="text"),
        pytest.param(encoded(RGB, "PNG")[:70], "not a readable picture", id="truncated-png"),
        pytest.param(
            encoded(np.tile(RGB, (20, 20, 1)), "JPEG")[:-2000],
            "not a readable picture",
            id="truncated-jpeg",
        ),
        pytest.param(
            encoded(RGB, "PNG").replace(b"IDAT", b"IDAT\xff"), "not a readable", id="corrupt-png"
        ),
        pytest.param(
            encoded(RGB, "TIFF", compression="tiff_lzw")[:60], "not a readable", id="cut-tiff"
        ),
        pytest.param(animation("GIF"), "2 frames", id="gif-animation"),
        pytest.param(animation("PNG"), "2 frames", id="png-animation"),
        pytest.param(animation("WEBP"), "2 frames", id="webp-animation"),
        pytest.param(animation("TIFF"), "2 frames", id="two-pages"),
        pytest.param(encoded(Image.new("CMYK", (4, 4)), "JPEG"), "mode CMYK", id="cmyk"),
        pytest.param(encoded(Image.new("LAB", (4, 4)), "TIFF"), "mode LAB", id="lab"),
        pytest.param(encoded(Image.new("F", (4, 4)), "TIFF"), "mode F .* 16-bit grey", id="float"),
        pytest.param(encoded(Image.new("I", (4, 4)), "TIFF"), "mode I", id="int32"),
        pytest.param(png_16_bit_rgb(), "more than 8 bits a channel", id="rgb16-png"),
        pytest.param(b"P6 1 1 65535\nabcdef", "more than 8 bits a channel", id="rgb16-ppm"),
        pytest.param(encoded(GREY16, "PNG", transparency=5), "transparent colour", id="grey16-key"),
    ],
)
def test_refused_content_names_the_file(tmp_path, content, text):
    path = tmp_path / "odd.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=text) as caught:
        load_photo(path)
    assert str(path) in str(caught.value)


def test_mpo_gives_the_main_picture(tmp_path):
    other = Image.fromarray(255 - RGB)
    path = write(tmp_path / "phone.mpo", RGB, save_all=True, append_images=[other])
    with Image.open(path) as stored:
        assert stored.n_frames == 2
        np.testing.assert_array_equal(load_photo(path).pixels, np.asarray(stored))


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        load_photo(tmp_path / "nowhere.png")
    with pytest.raises(IsADirectoryError, match="is a directory"):
        load_photo(tmp_path)


def test_size_limit_is_ours_not_pillows(tmp_path, monkeypatch):
    path = write(tmp_path / "a.png", RGB)
    with pytest.raises(ValueError, match="5x6 pixels are more than max_pixels = 29"):
        load_photo(path, max_pixels=29)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    assert load_photo(path, max_pixels=30).size == (HEIGHT, WIDTH)
    assert Image.MAX_IMAGE_PIXELS == 1


# -- saving


@pytest.mark.parametrize(
    ("pixels", "name", "text"),
    [
        (RGB, "a.xyz", "unknown file extension"),
        (RGB, "a.gif", "unknown file extension"),
        (RGB, "a", "unknown file extension"),
        (RGBA, "a.jpg", "JPEG cannot hold alpha"),
        (LA, "a.bmp", "BMP cannot hold alpha"),
        (GREY16[..., None], "a.jpg", "JPEG cannot hold 16 bits"),
        (GREY16[..., None], "a.webp", "WEBP cannot hold 16 bits"),
        (np.zeros((1, 16384, 3), np.uint8), "a.webp", "at most 16383 pixels a side"),
    ],
)
def test_unsuitable_format_is_refused(tmp_path, pixels, name, text):
    for attempt in (Photo(pixels).check_save, Photo(pixels).save):
        with pytest.raises(ValueError, match=text):
            attempt(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_opaque_alpha_is_dropped_where_the_format_has_none(tmp_path):
    opaque = np.dstack([RGB, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    Photo(opaque).save(tmp_path / "a.bmp")
    np.testing.assert_array_equal(read(tmp_path / "a.bmp"), RGB)


def test_unusable_targets(tmp_path, monkeypatch):
    (tmp_path / "d.png").mkdir()
    with pytest.raises(IsADirectoryError, match="expected a file name"):
        Photo(RGB).save(tmp_path / "d.png")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Photo(RGB).save(tmp_path / "no" / "a.png")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="is not writable"):
        Photo(RGB).save(tmp_path / "a.png")


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), MemoryError()])
def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch, error):
    path = write(tmp_path / "a.png", GREY)
    before = path.read_bytes()

    def fail_midway(self, stream, **options):
        stream.write(b"half a picture")
        raise error

    monkeypatch.setattr(Image.Image, "save", fail_midway)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else OSError
    with pytest.raises(expected):
        Photo(RGB).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="file modes and links")
def test_overwriting_keeps_mode_and_follows_links(tmp_path):
    path = write(tmp_path / "a.png", GREY)
    path.chmod(0o640)
    (tmp_path / "link.png").symlink_to(path)
    Photo(RGB).save(tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    np.testing.assert_array_equal(read(path), RGB)


# -- holes


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("polarity", ["white", "black"])
def test_hole_threshold_is_half_the_range(tmp_path, polarity, dtype):
    half = np.iinfo(dtype).max // 2
    path = write(tmp_path / "h.png", np.array([[0, half, half + 1, 2 * half + 1]], dtype))
    hole = load_hole(path, (1, 4), polarity)
    assert (hole.dtype, hole.shape) == (torch.bool, (1, 1, 1, 4))
    white = torch.tensor([False, False, True, True])
    torch.testing.assert_close(hole[0, 0, 0], white if polarity == "white" else ~white)


MARK = HOLE[0, 0].numpy()


def two_colours(ground, mark, dtype=np.uint8):
    return np.where(MARK[..., None], np.array(mark, dtype), np.array(ground, dtype)).squeeze()


def label_picture():
    picture = Image.frombytes("P", (WIDTH, HEIGHT), MARK.astype(np.uint8).tobytes())
    picture.putpalette([0, 0, 0, 128, 0, 0] + [0] * 750)
    return picture


@pytest.mark.parametrize(
    ("picture", "polarity", "text"),
    [
        (two_colours([0], [1]), "white", "black and grey 1 of 255, which was read as white"),
        (two_colours([1], [0]), "black", "black and grey 1 of 255, which was read as white"),
        (two_colours([0], [255], np.uint16), "white", "grey 255 of 65535, which was read as white"),
        (label_picture(), "white", r"rgb\(128, 0, 0\), which was read as white"),
        (two_colours([0] * 3, (255, 0, 0)), "white", r"rgb\(255, 0, 0\), which was read as white"),
        (two_colours([0] * 3, (0, 0, 255)), "white", r"rgb\(0, 0, 255\), which was read as white"),
        (
            two_colours([9, 9, 9, 0], (255, 0, 0, 255)),
            "white",
            r"rgb\(255, 0, 0\), which was read as white",
        ),
        (
            two_colours([255] * 3, (255, 255, 0)),
            "black",
            r"white and rgb\(255, 255, 0\), which was read as black",
        ),
    ],
)
def test_two_colours_are_read_as_meant_and_said_so(tmp_path, picture, polarity, text):
    path = write(tmp_path / "h.png", picture)
    with pytest.warns(UserWarning, match=rf"h\.png: its two colours are .*{text}"):
        hole = load_hole(path, (HEIGHT, WIDTH), polarity)
    assert torch.equal(hole, HOLE)


def three_colours():
    pixels = two_colours([0] * 3, (255, 0, 0))
    pixels[0, 0] = (0, 0, 255)
    return pixels


@pytest.mark.parametrize(
    ("pixels", "polarity", "text"),
    [
        (GREY * 0, "white", "nothing is missing where white marks .* black on 100.0 %;"),
        (GREY * 0 + 255, "black", "holds white on 100.0 %; .* white would take 100.0 %"),
        (GREY * 0 + 1, "white", "holds grey 1 of 255 on 100.0 %"),
        (three_colours(), "white", r"rgb\(255, 0, 0\) on 20.0 %, .* painted would take 23.3 %"),
        (LA * 0 + 255, "alpha", "nothing is missing where alpha marks"),
        (GREY // 2, "white", "2[0-9] more colours"),
        (GREY * 0, "painted", "nothing is missing where painted marks"),
    ],
)
def test_a_hole_of_which_nothing_is_missing_says_what_it_holds(tmp_path, pixels, polarity, text):
    path = write(tmp_path / "h.png", pixels)
    with pytest.raises(ValueError, match=text) as caught:
        load_hole(path, (HEIGHT, WIDTH), polarity)
    assert str(caught.value).startswith(f"{path}: ")
    assert "allow_empty" in str(caught.value)
    assert not load_hole(path, (HEIGHT, WIDTH), polarity, allow_empty=True).any()


def test_a_picture_without_transparency_is_no_hole():
    opaque = Photo(np.dstack([RGB, np.full((HEIGHT, WIDTH), 7, np.uint8)]))
    with pytest.raises(ValueError, match="no pixel is fully transparent, the least alpha is 7 of"):
        opaque.alpha_hole()
    assert not opaque.alpha_hole(allow_empty=True).any()


def test_a_hole_that_vanishes_in_resizing_is_an_error(tmp_path):
    pixels = np.zeros((9, 9), np.uint8)
    pixels[0, 0] = 255
    path = write(tmp_path / "h.png", pixels)
    with pytest.raises(ValueError, match="the hole vanished as it was resized to 3x3"):
        load_hole(path, (3, 3), resize=True)


def test_transparent_parts_of_a_mask_are_named_unless_the_user_chose(tmp_path):
    path = write(tmp_path / "h.png", two_colours([255, 0], [255, 255]))
    with pytest.warns(UserWarning, match=r"h\.png: 80.0 % .* read as known; --hole alpha takes"):
        assert torch.equal(load_hole(path, (HEIGHT, WIDTH)), HOLE)
    assert torch.equal(load_hole(path, (HEIGHT, WIDTH), "white"), HOLE)
    assert torch.equal(load_hole(path, (HEIGHT, WIDTH), "alpha"), ~HOLE)


@pytest.mark.parametrize("levels", [255, 65535])
@pytest.mark.parametrize("polarity", [None, "white", "black"])
def test_a_photo_as_mask_is_noted_and_a_soft_mask_is_not(tmp_path, polarity, levels):
    ramp = np.linspace(0, levels, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
    kind = np.uint8 if levels == 255 else np.uint16
    path = write(tmp_path / "h.png", ramp.astype(kind))
    side = "darker" if polarity == "black" else "brighter"
    with pytest.warns(UserWarning, match=f"many colours, as a photo has; what is {side} than half"):
        photo = load_hole(path, (HEIGHT, WIDTH), polarity)
    soft = np.where(ramp < levels / 2, 0, levels).astype(kind)
    soft[HEIGHT // 2, :2] = levels // 4, levels // 3
    again = load_hole(write(path, soft), (HEIGHT, WIDTH), polarity)
    assert (photo != again).sum() <= 2


@pytest.mark.parametrize("form", ["I", "F"])
@pytest.mark.parametrize("high", [1, 200, 255, 60000, 65535, 2**30])
def test_masks_of_32_bit_grey(tmp_path, form, high):
    kind = np.int32 if form == "I" else np.float32
    values = HOLE[0, 0].numpy() * np.array(high, kind)
    path = write(tmp_path / "h.tif", Image.fromarray(values.astype(kind)))
    with Image.open(path) as stored:
        assert stored.mode == form
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(load_hole(path, (HEIGHT, WIDTH)), HOLE)
        assert torch.equal(load_hole(path, (HEIGHT, WIDTH), "black"), ~HOLE)


def test_soft_masks_of_floats(tmp_path):
    values = np.array([[0, 0.5, 0.50001, 1]], np.float32)
    path = write(tmp_path / "h.tif", Image.fromarray(values))
    assert load_hole(path, (1, 4)).flatten().tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([[0.0, 37.5, 2.0]], r"from 0 to 37.5, are not those of a mask .*save the mask as 8-bit"),
        ([[-1.0, 0.0, 1.0]], "from -1 to 1, are not those of a mask"),
        ([[0.0, float("nan")]], "not all finite, so it is no mask"),
        ([[0, 70000, 3]], "from 0 to 70000, are not those of a mask"),
    ],
)
def test_32_bit_grey_that_is_no_mask(tmp_path, values, text):
    kind = np.float32 if isinstance(values[0][0], float) else np.int32
    path = write(tmp_path / "h.tif", Image.fromarray(np.array(values, kind)))
    with pytest.raises(ValueError, match=text) as caught:
        load_hole(path, (1, len(values[0])))
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("content", [encoded(Image.new("CMYK", (4, 4)), "JPEG"), png_16_bit_rgb()])
def test_refused_masks_are_called_masks(tmp_path, content):
    path = tmp_path / "h.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="; save the mask as 8-bit grey, black and white"):
        load_hole(path, (4, 4))


def test_painted_takes_every_colour_but_black(tmp_path):
    pixels = np.zeros((1, 5, 4), np.uint8)
    pixels[0, :4, 3] = 255
    pixels[0, 1, 2], pixels[0, 2, :3], pixels[0, 4, :3] = 1, 255, 255
    hole = load_hole(write(tmp_path / "h.png", pixels), (1, 5), "painted")
    assert hole.flatten().tolist() == [False, True, True, False, False]


def test_colour_that_counts_as_known_is_named(tmp_path):
    pixels = two_colours([0] * 3, (255, 0, 0))
    pixels[0, 0] = 255
    path = write(tmp_path / "h.png", pixels)
    text = "20.0 % of its pixels are coloured and were read as known; --hole painted"
    with pytest.warns(UserWarning, match=text):
        hole = load_hole(path, (HEIGHT, WIDTH))
    assert hole.sum() == 1


def test_hole_from_colours_palette_and_bits(tmp_path):
    missing = HOLE[0, 0].numpy()
    white = np.repeat(missing[..., None] * np.uint8(255), 3, axis=2)
    palette = Image.fromarray(white).quantize(2)
    for name, picture in (("rgb", white), ("bits", missing), ("palette", palette)):
        path = write(tmp_path / f"{name}.png", picture)
        assert torch.equal(load_hole(path, (HEIGHT, WIDTH)), HOLE), name


def test_transparent_pixels_of_a_painted_hole_are_known(tmp_path):
    path = write(
        tmp_path / "h.png", np.array([[[0, 127], [0, 255], [255, 127], [255, 128]]], np.uint8)
    )
    assert load_hole(path, (1, 4), "white").flatten().tolist() == [False, False, False, True]
    assert load_hole(path, (1, 4), "black").flatten().tolist() == [False, True, False, False]
    assert load_hole(path, (1, 4), "alpha").flatten().tolist() == [True, False, True, False]


def test_hole_of_another_size(tmp_path):
    path = write(tmp_path / "h.png", np.array([[0, 255]], np.uint8))
    with pytest.raises(ValueError, match=r"2x1 .*but the picture has 5x4 \(width x height\)"):
        load_hole(path, (4, 5))
    hole = load_hole(path, (4, 5), resize=True)[0, 0]
    # Centres of 5 columns over 2: 0.2 0.6 | 1.0 1.4 1.8.
    assert hole.tolist() == [[False, False, True, True, True]] * 4
    big = write(
        tmp_path / "big.png", np.kron(np.eye(3, dtype=np.uint8) * 255, np.ones((4, 4), np.uint8))
    )
    assert torch.equal(load_hole(big, (3, 3), resize=True)[0, 0], torch.eye(3, dtype=torch.bool))


def test_hole_follows_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write(tmp_path / "h.png", np.array([[0, 255]], np.uint8), exif=exif.tobytes())
    assert load_hole(path, (2, 1))[0, 0].tolist() == [[False], [True]]


def test_hole_arguments(tmp_path):
    path = write(tmp_path / "h.png", GREY)
    with pytest.raises(ValueError, match=r"polarity must be one of .* got 'red'"):
        load_hole(path, (HEIGHT, WIDTH), "red")
    with pytest.raises(ValueError, match="no alpha channel"):
        load_hole(path, (HEIGHT, WIDTH), "alpha")


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.uint8])
def test_saved_hole_is_white_and_reads_back(tmp_path, dtype):
    save_hole(HOLE.to(dtype), tmp_path / "h.png")
    np.testing.assert_array_equal(read(tmp_path / "h.png"), HOLE[0, 0].numpy() * np.uint8(255))
    assert torch.equal(load_hole(tmp_path / "h.png", (HEIGHT, WIDTH)), HOLE)


def test_save_hole_arguments(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(1, 1, height, width\), got \(6, 5\)"):
        save_hole(HOLE[0, 0], tmp_path / "h.png")
    with pytest.raises(TypeError, match="hole must be a tensor, got ndarray"):
        save_hole(HOLE.numpy(), tmp_path / "h.png")
    with pytest.raises(ValueError, match="JPEG would blur"):
        save_hole(HOLE, tmp_path / "h.jpg")


def test_missing_pillow_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'inpaint-ops\[image\]'"):
        load_photo("a.png")
