"""Are PLY and PCD files complete? Open3D fills up what a cut file lacks without an error, so this asks the header."""

import struct
from pathlib import Path

from papertwin.errors import DataError

SIZES = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "float64", "int64", "uint64"), 8),
}


def check_complete(path: Path) -> None:
    """Raise unless a PLY or PCD file holds all the points that its header announces.

    Raises:
        DataError: a header that is not understood, or fewer bytes (lines of a text file) than it announces.
    """
    content = path.read_bytes()
    try:
        check = _ply_shortage if path.suffix.lower() == ".ply" else _pcd_shortage
        shortage = check(content)
    except (KeyError, ValueError, IndexError, struct.error) as error:
        raise DataError(f"{path}: the header is not understood ({error}); it is malformed or cut short.") from error
    if shortage:
        raise DataError(f"{path} is cut short: its header announces {shortage}. Copy the file again.")


def _ply_shortage(content: bytes) -> str:
    """What is missing, in words; empty when nothing is."""
    end = content.index(b"end_header")
    start = content.index(b"\n", end) + 1
    form, count, stride, before, inside = "", 0, 0, 0, ""
    for line in content[:end].decode("ascii", "replace").splitlines():
        words = line.split()
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
        return _missing_lines(content[start:], before + count)
    return _missing_bytes(len(content) - start, before + count * stride)


def _pcd_shortage(content: bytes) -> str:
    """What is missing, in words; empty when nothing is."""
    fields, start = {}, 0
    while "DATA" not in fields:
        stop = content.index(b"\n", start)
        words = content[start:stop].decode("ascii", "replace").split()
        if words:
            fields[words[0]] = words[1:]
        start = stop + 1
    count = int(fields["POINTS"][0])
    sizes = [int(size) for size in fields["SIZE"]]
    repeats = [int(repeat) for repeat in fields.get("COUNT", ["1"] * len(sizes))]
    if fields["DATA"] == ["ascii"]:
        return _missing_lines(content[start:], count)
    if fields["DATA"] == ["binary_compressed"]:
        return _missing_bytes(len(content) - start, 8 + struct.unpack_from("<I", content, start)[0])
    return _missing_bytes(len(content) - start, count * sum(s * r for s, r in zip(sizes, repeats, strict=True)))


def _missing_bytes(got: int, expected: int) -> str:
    return f"{expected} bytes of points, {got} are there" if got < expected else ""


def _missing_lines(body: bytes, expected: int) -> str:
    got = sum(1 for line in body.splitlines() if line.strip())
    return f"{expected} lines of points, {got} are there" if got < expected else ""
