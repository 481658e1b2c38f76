"""Files made of pieces: what is read where."""

import io
import os

from eat_plugin.data.pieces import PiecedFile


def test_pieced_file__ends_with_the_part(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"0123456789")
    with open(tmp_path / "x.zip", "rb") as file:
        part = PiecedFile(file.fileno(), [(2, 7)])
        buffer = bytearray(8)
        assert part.readinto(buffer) == 5
        assert buffer == b"23456\0\0\0"
        assert (part.tell(), part.readinto(buffer)) == (5, 0)
        assert part.seek(-2, os.SEEK_END) == 3
        assert part.seek(-1, os.SEEK_CUR) == 2
        assert (part.readinto(buffer), buffer[:3]) == (3, b"456")
        assert (part.seek(99), part.readinto(buffer)) == (99, 0)
        assert part.seek(-1) == 0


def test_pieced_file__joins_bytes_and_parts(tmp_path):
    (tmp_path / "x").write_bytes(b"0123456789")
    with open(tmp_path / "x", "rb") as file:
        pieces = [b"abc", (2, 4), b"d", (8, 10)]
        for size in (1, 2, 3, 100):
            joined = io.BufferedReader(PiecedFile(file.fileno(), pieces), size)
            assert joined.read() == b"abc23d89"
            joined.seek(4)
            assert joined.read(3) == b"3d8"


def test_pieced_file__claims_more_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"0123456789")
    with open(tmp_path / "x", "rb") as file:
        part = PiecedFile(file.fileno(), [(0, 10)], more=500)
        assert part.seek(0, os.SEEK_END) == 510
        assert (part.seek(10), part.readinto(bytearray(8))) == (10, 0)
        part.seek(-128, os.SEEK_END)
        buffer = bytearray(b"x" * 200)
        assert part.readinto(buffer) == 128
        assert buffer == bytes(128) + b"x" * 72
