"""Pictures of folders, lists, shards and known data sets, in a fixed order."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from inpaint_ops.data import check_pictures, find_pictures

PIXELS = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS).save(folder / name)
    return folder


def shard(path, *names, content=None):
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG")
    with tarfile.open(path, "w") as archive:
        for name in names:
            data = b"label" if name.endswith((".cls", ".json")) else content or stream.getvalue()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def names(*arguments, **options):
    return [one.name for one in find_pictures(*arguments, **options)]


def test_folders_are_searched_in_a_fixed_order(tmp_path):
    touch(tmp_path, "b/1.png", "a/2.JPG", "a/10.png", "a/1.png", "c.webp", ".hidden/x.png")
    touch(tmp_path, "a/.x.png")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "a/again").symlink_to(tmp_path)
    (tmp_path / "z").symlink_to(tmp_path / "b")
    found = find_pictures(tmp_path)
    assert [one.name for one in found] == (
        ["a/1.png", "a/10.png", "a/2.JPG", "b/1.png", "c.webp", "z/1.png"]
    )
    assert found[0].load().pixels.shape == (6, 8, 3)
    assert len(found.digest) == 64
    assert found.digest == find_pictures(tmp_path).digest
    (tmp_path / "c.webp").unlink()
    assert found.digest != find_pictures(tmp_path).digest


def test_lists_have_a_path_a_line(tmp_path):
    touch(tmp_path / "photos", "a b.png", "x/1.jpg", "2.png")
    file = tmp_path / "lists/train.txt"
    file.parent.mkdir()
    file.write_text("/x/1.jpg 12\n\n2.png 0 1\na b.png\n", encoding="utf-8")
    found = find_pictures(file, root=tmp_path / "photos")
    assert [one.name for one in found] == ["/x/1.jpg", "2.png", "a b.png"]
    assert all(one.load() for one in found)
    beside = tmp_path / "photos/train.flist"
    beside.write_text(f"2.png\n{tmp_path}/photos/a b.png\n")
    assert all(one.load() for one in find_pictures(beside))
    beside.write_text("2.png\nnotes\n")
    with pytest.raises(ValueError, match=r"train\.flist, line 2: is no path of a picture: 'notes'"):
        find_pictures(beside)
    with pytest.raises(ValueError, match="root is for lists"):
        find_pictures(tmp_path / "photos", root=tmp_path)


def test_shards_are_read_at_random(tmp_path):
    shard(tmp_path / "001.tar", "b.png", "b.cls", "a.png", "a.json", "._a.png")
    touch(tmp_path, "000.png")
    found = find_pictures(tmp_path)
    assert [one.name for one in found] == ["000.png", "001.tar/b.png", "001.tar/a.png"]
    assert np.array_equal(found[2].load().pixels, PIXELS)
    assert names(tmp_path / "001.tar") == ["001.tar/b.png", "001.tar/a.png"]


@pytest.mark.parametrize("cut", [512, 700, 1024 + 300])
def test_shards_that_are_cut_short_are_errors(cut, tmp_path):
    path = shard(tmp_path / "s.tar", "a.png", "b.png")
    with tarfile.open(path) as archive:
        end = archive.getmembers()[-1].offset
    path.write_bytes(path.read_bytes()[: end + cut - 512])
    with pytest.raises(ValueError, match=r"s\.tar: "):
        find_pictures(path)


def test_shards_that_are_damaged_or_compressed_are_errors(tmp_path):
    path = shard(tmp_path / "s.tar", "a.png", "b.png", "c.png")
    with tarfile.open(path) as archive:
        place = archive.getmembers()[1].offset
    content = bytearray(path.read_bytes())
    content[place + 148] ^= 0xFF  # a checksum
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"s\.tar: damaged, or cut short"):
        find_pictures(path)
    with tarfile.open(tmp_path / "t.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(ValueError, match=r"t\.tar: not a readable tar file, uncompressed"):
        find_pictures(tmp_path / "t.tar")


# Folders of a data set, then (split, names) or (split, error).
KNOWN = {
    "places2": (
        ("data_256_standard/a/airfield/1.jpg", "val_256/2.jpg", "test_256/3.jpg"),
        ("train", ["a/airfield/1.jpg"]),
        ("val", ["2.jpg"]),
    ),
    "two sizes of places2": (
        ("data_256/a/1.jpg", "data_large/a/1.jpg", "val_256/2.jpg"),
        ("train", "looks like Places2, of which train must be one folder, got data_large, "),
        ("val", ["2.jpg"]),
    ),
    "celeba_hq": (
        ("CelebA-HQ-img/0.jpg", "CelebAMask-HQ-mask-anno/0/00000_hair.png"),
        ("train", ["0.jpg"]),
        ("val", "of which val must be one folder, got none of its folders"),
    ),
    "ffhq": (
        *[("images1024x1024/00000/1.png", "images1024x1024/69000/69001.png", "thumbnails/1.png")],
        ("train", ["00000/1.png"]),
        ("val", ["69000/69001.png"]),
    ),
    "paris": (
        ("paris_train_original/1.JPG", "paris_eval/paris_eval_gt/2.png", "paris_eval/bad/2.png"),
        ("train", ["1.JPG"]),
        ("val", ["2.png"]),
    ),
    "celeba_hq in parts": (
        ("train/male/1.jpg", "train/female/2.jpg", "val/male/3.jpg"),
        ("train", ["female/2.jpg", "male/1.jpg"]),
        ("val", ["male/3.jpg"]),
        ("test", "of which test must be one folder, got none of test"),
    ),
    "classes, one of them named train": (
        ("train/1.jpg", "ship/2.jpg"),
        ("train", ["ship/2.jpg", "train/1.jpg"]),
    ),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_known_data_sets(kind, tmp_path):
    files, *parts = KNOWN[kind]
    touch(tmp_path, *files)
    for split, expected in parts:
        if isinstance(expected, str):
            with pytest.raises(ValueError, match=expected):
                find_pictures(tmp_path, split=split)
        else:
            assert names(tmp_path, split=split) == expected


def test_what_holds_no_pictures_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: does not exist"):
        find_pictures(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no pictures"):
        find_pictures(tmp_path)
    (tmp_path / "x.zip").write_bytes(b"x")
    with pytest.raises(ValueError, match="must be a folder or end in one of"):
        find_pictures(tmp_path / "x.zip")
    with pytest.raises(ValueError, match="split must be one of"):
        find_pictures(tmp_path, split="dev")


def test_every_bad_file_is_named_with_its_reason(tmp_path):
    touch(tmp_path, "a.png", "b.png", "c.jpg", "d.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:50])
    (tmp_path / "c.jpg").write_bytes(b"not a picture")
    shard(tmp_path / "e.tar", "bad.png", content=b"\x89PNG")
    faults = [one for one in check_pictures(find_pictures(tmp_path), threads=2) if one]
    assert [one.name for one in faults] == [
        *(str(tmp_path / "b.png"), str(tmp_path / "c.jpg")),
        f"{tmp_path / 'e.tar'}: e.tar/bad.png",
    ]
    assert all(one.why.startswith("not a readable picture (") for one in faults)
