"""Are PLY and PCD files complete? Open3D fills up what a cut file lacks without an error, so this asks the header."""

import struct
from pathlib import Path
from typing import BinaryIO

from papertwin.errors import DataError

SIZES = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "float64", "int64", "uint64"), 8),
}
HEADER_LIMIT = 1 << 20  # bytes; no header is longer


def check_complete(path: Path) -> None:
    """Raise unless a PLY or PCD file holds all the points that its header announces.

    Of a binary file only the header is read; the size tells the rest. The lines of a text file are counted.

    Raises:
        DataError: a header that is not understood, or fewer bytes (lines of a text file) than it announces.
    """
    check = _ply_shortage if path.suffix.lower() == ".ply" else _pcd_shortage
    try:
        with path.open("rb") as file:
            shortage = check(file, path.stat().st_size)
    except (KeyError, ValueError, IndexError, struct.error) as error:
        raise DataError(f"{path}: the header is not understood ({error}); it is malformed or cut short.") from error
    if shortage:
        raise DataError(f"{path} is cut short: its header announces {shortage}. Copy the file again.")


def _header(file: BinaryIO, last: str) -> list[list[str]]:
    """The words of each line up to the one that begins with `last`; the file is left at the first byte after it."""
    lines: list[list[str]] = []
    while file.tell() < HEADER_LIMIT:
        line = file.readline(HEADER_LIMIT)
        if not line.endswith(b"\n"):
            break
        lines.append(line.decode("ascii", "replace").split())
        if lines[-1][:1] == [last]:
            return lines
    raise ValueError(f"no line {last!r}")


def _ply_shortage(file: BinaryIO, size: int) -> str:
    """What is missing, in words; empty when nothing is."""
    form, count, stride, before, inside = "", 0, 0, 0, ""
    for words in _header(file, "end_header"):
        if words[:1] == ["format"]:
            form = words[1]
        elif words[:1] == ["element"]:
            if inside == "vertex":
                break
            before += count if form == "ascii" else count * stride
            inside, count, stride = words[1], int(words[2]), 0
        elif words[:1] == ["property"]:
            stride += SIZES[words[1]]
    if inside != "vertex":
        raise ValueError("no element 'vertex'")
    if form == "ascii":
        return _missing_lines(file, before + count)
    return _missing_bytes(size - file.tell(), before + count * stride)


def _pcd_shortage(file: BinaryIO, size: int) -> str:
    """What is missing, in words; empty when nothing is."""
    fields = {words[0]: words[1:] for words in _header(file, "DATA") if words}
    start = file.tell()
    count = int(fields["POINTS"][0])
    sizes = [int(size) for size in fields["SIZE"]]
    repeats = [int(repeat) for repeat in fields.get("COUNT", ["1"] * len(sizes))]
    if fields["DATA"] == ["ascii"]:
        return _missing_lines(file, count)
    if fields["DATA"] == ["binary_compressed"]:
        return _missing_bytes(size - start, 8 + struct.unpack("<I", file.read(4))[0])
    return _missing_bytes(size - start, count * sum(s * r for s, r in zip(sizes, repeats, strict=True)))


def _missing_bytes(got: int, expected: int) -> str:
    return f"{expected} bytes of points, {got} are there" if got < expected else ""


def _missing_lines(body: BinaryIO, expected: int) -> str:
    got = sum(1 for line in body if line.strip())
    return f"{expected} lines of points, {got} are there" if got < expected else ""
