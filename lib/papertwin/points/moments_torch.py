"""The moments within a radius as batched matrix products, for an accelerator: mask (q, c) @ features (c, 10).

Queries are cut into tiles, each within one cell of a grid as wide as the radius; their candidates are the points of
the 27 cells around. Distances are float64 differences, as in the compiled kernels, so both find the same neighbours.
Memory is bounded by BUDGET; time grows with the number of candidates, other than on the CPU.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from papertwin.points.voxels import cell_codes

TILE = 128  # queries that share their candidates
BUDGET = 2**25  # entries of a mask: 256 MiB in float64


class _Tiles(NamedTuple):
    """Tiles of queries: first place, number of queries, and the nine ranges of candidates with their lengths."""

    first: torch.Tensor
    size: torch.Tensor
    begin: torch.Tensor
    length: torch.Tensor


def moments(
    points: np.ndarray, surface: np.ndarray, radius: float, device: torch.device, budget: int = BUDGET
) -> tuple[np.ndarray, np.ndarray]:
    """Sum the moments of the surface points within the radius of each point.

    Args:
        points: (n, 3) checked coordinates.
        surface: (m, 3) checked coordinates that are searched.
        radius: > 0.
        device: torch device with float64.
        budget: most entries of a mask at once.

    Returns:
        (n, 10) float64 moments about each point (order as in `kernels`), and (n,) the size of their terms.

    Raises:
        InputError: the radius is so small that the grid's cells cannot be numbered.
    """
    tiles, order, source = _tiles(points, surface, radius, device)
    places = torch.from_numpy(points.astype(np.float64)).to(device)[order]
    sums = torch.zeros((len(points), 10), dtype=torch.float64, device=device)
    scale = torch.zeros(len(points), dtype=torch.float64, device=device)
    for tile in _batches(tiles, budget):
        row = tile.first[:, None] + torch.arange(TILE, device=device)
        real = torch.arange(TILE, device=device) < tile.size[:, None]
        row = torch.where(real, row, tile.first[:, None])
        near = places[row]
        origin = near.mean(dim=1, keepdim=True)
        total = _batch(near, origin, source, tile, radius * radius, budget)
        shifted, size = _shift(total, origin - near)
        sums[order[row[real]]] = shifted[real]
        scale[order[row[real]]] = size[real]
    return sums.cpu().numpy(), scale.cpu().numpy()


def _tiles(
    points: np.ndarray, surface: np.ndarray, radius: float, device: torch.device
) -> tuple[_Tiles, torch.Tensor, torch.Tensor]:
    """Cut the queries into tiles; also the queries' order, and the surface sorted by cell."""
    both = np.concatenate((points, surface)).astype(np.float64)
    codes, (_, rows, layers) = cell_codes(both, both.min(axis=0), radius * (1.0 + 1e-6))
    codes = torch.from_numpy(codes).to(device)
    mine, order = torch.sort(codes[: len(points)], stable=True)
    theirs, inner = torch.sort(codes[len(points) :], stable=True)
    source = torch.from_numpy(both[len(points) :]).to(device)[inner]
    cell, count = torch.unique_consecutive(mine, return_counts=True)
    pieces = (count + TILE - 1) // TILE
    owner = torch.repeat_interleave(torch.arange(len(cell), device=device), pieces)
    number = torch.arange(len(owner), device=device) - (pieces.cumsum(0) - pieces)[owner]
    first = (count.cumsum(0) - count)[owner] + TILE * number
    size = torch.minimum(count[owner] - TILE * number, torch.tensor(TILE, device=device))
    begin, end = _ranges(cell[owner], rows, layers, theirs)
    return _Tiles(first, size, begin, end - begin), order, source


def _ranges(cell: torch.Tensor, rows: int, layers: int, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(tiles, 9) first and last place, in sorted `codes`, of the three cells z - 1, z, z + 1 of each row around."""
    z, y = cell % layers, cell // layers % rows
    dx, dy = (part.flatten().to(cell.device) for part in torch.meshgrid(*[torch.arange(-1, 2)] * 2, indexing="ij"))
    base = cell[:, None] + (dx * rows + dy) * layers
    low = base - (z > 0)[:, None].long()
    high = base + (z < layers - 1)[:, None].long()
    begin, end = torch.searchsorted(codes, low), torch.searchsorted(codes, high, right=True)
    inside = (y[:, None] + dy >= 0) & (y[:, None] + dy < rows)
    return torch.where(inside, begin, 0), torch.where(inside, end, 0)


def _batches(tiles: _Tiles, budget: int) -> Iterator[_Tiles]:
    """Tiles with a similar number of candidates together, as many as the budget allows."""
    lengths, by_length = tiles.length.sum(dim=1).sort()
    lengths = lengths.cpu().numpy()
    start = 0
    while start < len(lengths):
        stop = start + 1
        while stop < len(lengths) and (stop + 1 - start) * TILE * lengths[stop] <= budget:
            stop += 1
        yield _Tiles(*(part[by_length[start:stop]] for part in tiles))
        start = stop


def _batch(
    near: torch.Tensor, origin: torch.Tensor, source: torch.Tensor, tile: _Tiles, r2: float, budget: int
) -> torch.Tensor:
    """(tiles, TILE, 10) moments about the tiles' origins; candidates are taken in pieces that fit the budget."""
    after = tile.length.cumsum(dim=1)
    total = torch.zeros((*near.shape[:2], 10), dtype=torch.float64, device=near.device)
    most, piece = int(after[:, -1].max()), max(1, budget // (len(near) * TILE))
    for start in range(0, most, piece):
        place = torch.arange(start, min(most, start + piece), device=near.device).expand(len(near), -1).contiguous()
        which = torch.searchsorted(after, place, right=True).clamp(max=8)
        index = tile.begin.gather(1, which) + place - (after - tile.length).gather(1, which)
        real = place < after[:, -1:]
        candidate = source[torch.where(real, index, 0)]
        square = torch.zeros((*near.shape[:2], place.shape[1]), dtype=torch.float64, device=near.device)
        for axis in range(3):
            offset = candidate[:, None, :, axis] - near[:, :, None, axis]
            square += offset * offset
        mask = (square <= r2) & real[:, None, :]
        total += mask.double() @ _features(candidate - origin)
    return total


def _features(offset: torch.Tensor) -> torch.Tensor:
    """(…, 3) offsets → (…, 10): 1, x, y, z, xx, yy, zz, xy, xz, yz."""
    x, y, z = offset.unbind(dim=-1)
    return torch.stack((torch.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z), dim=-1)


def _shift(total: torch.Tensor, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Moments about the queries, d from the origin of `total`, and the size of the terms."""
    n, first = total[..., :1], total[..., 1:4]
    square = total[..., 4:7] + d * (2.0 * first + n * d)
    i, k = [0, 0, 1], [1, 2, 2]
    mixed = total[..., 7:] + d[..., i] * first[..., k] + d[..., k] * first[..., i] + n * d[..., i] * d[..., k]
    size = total[..., 4:7].sum(dim=-1) + (n * d * d).sum(dim=-1)
    return torch.cat((n, first + n * d, square, mixed), dim=-1), size
