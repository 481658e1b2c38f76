"""Damaged inputs, and the process that opens them: ``python -m tests.fuzzing KIND FOLDER``.

It prints the name of each input before it opens it. An input may be read, or be refused by a
ValueError (in ``eat``: exit code 1 or 2); anything else, or more than ``LIMIT`` seconds, ends the
process with an error.
"""

import contextlib
import faulthandler
import io
import struct
import sys
from pathlib import Path

LIMIT = 60  # seconds per input
NUMBERS = (0, 1, 2**15 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
TEXTS = (
    b"", b"\n", b"\0", b"\t", b",", b'"', b"\xff\xfe", b"\xef\xbb\xbf", b"-1", b"1e999", b"NaN",
    b"[" * 100_000, b"{}", b"null", b"9" * 500, b"../../etc/passwd", b"/dev/zero", b"a" * 100_000,
    b"=cmd()", b"${X}", b"__import__('os').system('touch EXECUTED')", b"$(touch EXECUTED)",
    b"`touch EXECUTED`", b"cos\nsystem\n(S'touch EXECUTED'\ntR.",
    b"!!python/object/apply:os.system ['touch EXECUTED']",
)  # fmt: skip


def damage_bytes(content, rng):
    """Flip, cut, move or overwrite some bytes, most often near the start, where headers are."""
    damaged, kind = bytearray(content), rng.integers(7)
    start = int(rng.integers(min(len(content), 200) if rng.random() < 0.6 else len(content)))
    length = int(2 ** rng.uniform(0, 12))
    if kind == 0:
        for place in rng.integers(len(content), size=int(2 ** rng.uniform(0, 8))):
            damaged[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del damaged[start:]
    elif kind == 2:
        del damaged[start : start + length]
    elif kind == 3:
        damaged[start : start + length] = rng.bytes(min(length, len(content) - start))
    elif kind == 4:
        damaged[start:start] = damaged[start : start + length]
    elif kind == 5:
        damaged[start : start + length] = bytes(min(length, len(content) - start))
    else:
        number = NUMBERS[int(rng.integers(len(NUMBERS)))]
        width, order = ("I", "Q")[number >= 2**32], "<>"[int(rng.integers(2))]
        packed = struct.pack(order + width, number)
        damaged[start : start + len(packed)] = packed
    return bytes(damaged)


def damage_text(content, rng):
    """Put strange text into a file of lines, in place of a line or of a field."""
    lines = content.split(b"\n")
    number = int(rng.integers(len(lines)))
    text = TEXTS[int(rng.integers(len(TEXTS)))]
    kind = rng.integers(5)
    if kind == 0:
        lines[number] = text
    elif kind == 1:
        fields = lines[number].split(b"\t")
        fields[int(rng.integers(len(fields)))] = text
        lines[number] = b"\t".join(fields)
    elif kind == 2:
        lines.insert(number, lines[int(rng.integers(len(lines)))])
    elif kind == 3:
        del lines[number]
    else:
        place = int(rng.integers(len(lines[number]) + 1))
        lines[number] = lines[number][:place] + text + lines[number][place:]
    return b"\n".join(lines)


def open_sound(path):
    """Read a clip as training does, and as ``eat manifest --check`` does."""
    from eat_plugin.data.sources import probe_clip, read_audio
    from eat_plugin.prepare.quality import examine

    for function in (probe_clip, read_audio, lambda clip: read_audio(clip, 5_000, 100), examine):
        with contextlib.suppress(ValueError):
            function(path)


def open_container(path):
    """List an archive or HDF5 file, and read its clips."""
    from eat_plugin.prepare.archive_index import index_archive

    for place in index_archive(path, {"wav", "flac"}, {"cls"}).clips.values():
        open_sound(path + place)


def open_image(path):
    """Decode an image."""
    from eat_plugin.images.decode import read_image

    with contextlib.suppress(ValueError):
        read_image(path)


def open_folder(path):
    """Run the commands on a data folder, or on a cache, and read its clips with their labels."""
    from omegaconf import OmegaConf

    from eat_plugin.cli import main
    from eat_plugin.tasks.classification import ClassificationConfig, EatClassificationTask

    for arguments in (
        ["stats", path, "--workers", "1"],
        ["cache", path, "--out", f"{path}.made", "--workers", "1"],
        ["cache", "--verify", path, "--workers", "1"],
        ["manifest", f"{Path(path).parents[1]}/audio", "--out", f"{path}.listed", "--layout", "csv",
         "--csv", f"{path}/table.csv", "--label-separator", ";", "--workers", "1"],
    ):  # fmt: skip
        shown = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(shown):
            code = main(arguments)
        assert code in (0, 1, 2), (arguments, code)
        errors = [line for line in shown.getvalue().splitlines() if ": error: " in line]
        assert len(errors) == (code == 2), (arguments, code, errors)
    options = {"data": path, "target_length": 64, "patch_size": 16, "seed": 1}
    with contextlib.suppress(ValueError, OSError, RuntimeError):  # too many clips failed
        task = EatClassificationTask(
            OmegaConf.merge(OmegaConf.structured(ClassificationConfig), options)
        )
        task.load_dataset("train")
        dataset = task.dataset("train")
        dataset.collater([dataset[index] for index in range(len(dataset))])


OPEN = {
    "sounds": open_sound, "containers": open_container, "images": open_image,
    "folders": open_folder,
}  # fmt: skip


def main(kind, folder):
    """Open all inputs of a folder."""
    for path in sorted(Path(folder).iterdir()):
        sys.stdout.write(f"{path.name}\n")
        sys.stdout.flush()
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        OPEN[kind](str(path))
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    faulthandler.enable()
    main(*sys.argv[1:])
