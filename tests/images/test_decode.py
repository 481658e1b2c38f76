"""Image files: formats, colours, errors of invalid files."""

import io
import struct
import sys
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from eat_plugin.data.clip import ClipError
from eat_plugin.data.entries import Storage, locate
from eat_plugin.images.decode import probe_image, read_image, require_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def colours(rows):
    return Image.fromarray(np.array(rows, dtype=np.uint8))


def pixels_of(path, channels=3):
    return np.asarray(read_image(path, channels)).tolist()


def noise(height=24, width=40, seed=0):
    return colours(np.random.default_rng(seed).integers(0, 256, (height, width, 3)))


def test_require_image__by_extension_or_in_archives():
    require_image(Storage.IMAGE)
    require_image(Storage.ARCHIVE)
    for storage in (Storage.FILE, Storage.HDF5, Storage.CACHE):
        with pytest.raises(ClipError, match="is not an image by the ending of its name; .* of png"):
            require_image(storage)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_probe__counts_pixels(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    noise().save(path)
    assert probe_image(path) == (24 * 40, 0)


def test_read__format_comes_from_the_content(tmp_path):
    noise().save(tmp_path / "a.png", format="JPEG")
    noise().save(tmp_path / "a.jpg", format="JPEG")
    assert pixels_of(tmp_path / "a.png") == pixels_of(tmp_path / "a.jpg")


# ---- Colours -------------------------------------------------------------------------------


def test_read__transparent_is_blended_with_white(tmp_path):
    rows = [[(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 51)]]
    colours(rows).save(tmp_path / "rgba.png")
    assert pixels_of(tmp_path / "rgba.png") == [[list(RED), list(WHITE), [204] * 3]]
    assert pixels_of(tmp_path / "rgba.png", 1) == [[76, 255, 204]]
    colours([[[0, 255], [0, 0]]]).save(tmp_path / "la.png")
    assert pixels_of(tmp_path / "la.png", 1) == [[0, 255]]


def test_read__palette_with_and_without_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([*BLUE, *GREEN])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "clear.png", transparency=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels_of(tmp_path / "plain.png") == [[list(BLUE), list(GREEN)]]
        assert pixels_of(tmp_path / "clear.png") == [[list(BLUE), list(WHITE)]]


def test_read__sixteen_bits_keep_the_upper_eight(tmp_path):
    values = np.array([[0, 255, 256, 0x8000, 0xFFFF]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert pixels_of(tmp_path / "deep.png", 1) == [[0, 0, 1, 128, 255]]
    assert pixels_of(tmp_path / "deep.png", 3) == [[[v] * 3 for v in (0, 0, 1, 128, 255)]]


def test_read__cmyk_grey_and_one_bit(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    red, green, blue = np.asarray(read_image(tmp_path / "cmyk.jpg"))[4, 4].tolist()
    assert red > 245
    assert max(green, blue) < 10
    Image.new("L", (1, 1), 77).save(tmp_path / "grey.png")
    assert pixels_of(tmp_path / "grey.png") == [[[77] * 3]]
    Image.new("1", (1, 1), 1).save(tmp_path / "bit.png")
    assert pixels_of(tmp_path / "bit.png", 1) == [[255]]


def test_read__applies_the_exif_orientation(tmp_path):
    image = colours([[RED, GREEN, BLUE]])
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned left; the orientation turns it right
    image.save(tmp_path / "turned.png", exif=exif)
    assert probe_image(tmp_path / "turned.png") == (3, 0)
    assert pixels_of(tmp_path / "turned.png") == [[list(RED)], [list(GREEN)], [list(BLUE)]]


# ---- Errors --------------------------------------------------------------------------------


def make_png(width, height):
    """The least part of a PNG that a decoder accepts as a header."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (10_000, 9_000, "has 10000x9000 = 90000000 pixels; at most 89478485 can be used"),
        (60_000, 60_000, "has more than 178956970 pixels; at most 89478485 can be used"),
    ],
)
def test_bomb__is_refused_by_its_header(tmp_path, width, height, message, monkeypatch):
    (tmp_path / "bomb.png").write_bytes(make_png(width, height))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    for use in (probe_image, read_image):
        with pytest.raises(ClipError, match=message):
            use(tmp_path / "bomb.png")


def test_bomb__limit_is_an_option(tmp_path):
    noise(10, 10).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", max_pixels=100).size == (10, 10)
    with pytest.raises(ClipError, match="has 10x10 = 100 pixels; at most 99 can be used"):
        read_image(tmp_path / "a.png", max_pixels=99)


def test_read__size_unlike_the_manifest(tmp_path):
    noise(10, 12).save(tmp_path / "a.png")
    entry = locate(tmp_path / "a.png")
    assert read_image(entry._replace(size=120)).size == (12, 10)
    with pytest.raises(ClipError, match="has 12x10 = 120 pixels, 100 were expected"):
        read_image(entry._replace(size=100))


@pytest.mark.parametrize("ending", ["png", "webp"])
def test_read__animated_is_refused(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    noise().save(path, save_all=True, append_images=[noise(seed=1), noise(seed=2)])
    for use in (probe_image, read_image):
        with pytest.raises(ClipError, match="is animated: 3 frames"):
            use(path)


def test_read__mpo_gives_its_first_image(tmp_path):
    noise().save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[noise(seed=1)])
    noise().save(tmp_path / "b.jpg")
    assert probe_image(tmp_path / "a.jpg") == (960, 0)
    assert pixels_of(tmp_path / "a.jpg") == pixels_of(tmp_path / "b.jpg")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_read__truncated(tmp_path, ending, share):
    noise(64, 64).save(tmp_path / f"whole.{ending}")
    content = (tmp_path / f"whole.{ending}").read_bytes()
    path = tmp_path / f"part.{ending}"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ClipError, match="cannot be decoded|its header is damaged"):
        read_image(path)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_read__damaged_bytes_give_an_image_or_a_clip_error(tmp_path, ending):
    noise(32, 32).save(tmp_path / f"whole.{ending}")
    content = (tmp_path / f"whole.{ending}").read_bytes()
    rng, errors = np.random.default_rng(0), 0
    for _ in range(150):
        broken = bytearray(content)
        for place in rng.integers(0, min(len(content), 300), 3):
            broken[place] = rng.integers(256)
        (tmp_path / "broken").write_bytes(broken)
        try:
            read_image(tmp_path / "broken")
        except ClipError:
            errors += 1
    assert errors > 10


def test_read__not_an_image(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    noise().save(tmp_path / "gif.png", format="GIF")
    for name, message in (
        ("text.png", "is not a PNG, JPEG or WebP image"),
        ("gif.png", "is not a PNG, JPEG or WebP image"),
        ("empty.png", "is empty: 0 bytes"),
        ("folder.png", "is a directory, not a file"),
        ("none.png", "cannot be opened: No such file"),
        ("null\0.png", "cannot be opened"),
    ):
        with pytest.raises(ClipError, match=message):
            probe_image(tmp_path / name)


def test_pillow__missing_one_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ValueError, match=r"images need Pillow: pip install pillow.*'images'"):
        probe_image(tmp_path / "a.png")


def test_read__from_an_archive(tmp_path):
    buffer = io.BytesIO()
    noise().save(buffer, format="PNG")
    content = buffer.getvalue()
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.png", content)
    (tmp_path / "folder.zip").mkdir()
    start = (tmp_path / "s.zip").read_bytes().index(content)
    path = tmp_path / f"s.zip:{start}:{len(content)}"
    assert probe_image(path) == (960, 0)
    assert pixels_of(path) == np.asarray(noise()).tolist()
    for entry, message in (
        (f"s.zip:{start}:999999", "is outside of its archive"),
        (f"s.zip:{start}:0", "^is empty: 0 bytes"),
        ("folder.zip:0:10", "^the archive is a directory, not a file"),
        (f"s.zip:{start + 1}:{len(content)}", "is not a PNG, JPEG or WebP image"),
        ("t.zip:0:10", "the archive cannot be opened"),
    ):
        with pytest.raises(ClipError, match=message):
            probe_image(tmp_path / entry)
