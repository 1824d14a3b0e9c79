"""Draw every annotated box of data/street over its scene, so that a reviewer can check the annotation by eye.

    python data/prepare/street_boxes.py --out DIR

Writes, for each scene, SCENE.png (bird's-eye view, every box numbered by its line in boxes.csv) and
SCENE_boxes_N.png (each box from above, from its side and from its end; returns inside it in red). Reads
boxes.csv only: a box is corrected by editing its line there, then running street.py to register the file.
Needs NumPy and matplotlib.
"""

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

STREET = Path(__file__).resolve().parents[1] / "street"
COLOURS = {"car": "tab:blue", "pole": "tab:orange", "cyclist": "tab:green", "person": "tab:purple"}
MARGIN = 1.3  # metres drawn around a box
ROWS = 5  # boxes on one sheet
RANGE = 32.0  # half side of the bird's-eye view, metres


def read_boxes(path: Path) -> list[dict]:
    """Read the annotation: one dict per line, numbers as float, with `line` for its place in the file."""
    with path.open(encoding="utf8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    text = ("scene", "label")
    return [{"line": i, **{k: v if k in text else float(v) for k, v in row.items()}} for i, row in enumerate(rows, 2)]


def to_box(points: np.ndarray, box: dict) -> np.ndarray:
    """Express points (n, 3) in a box's frame: x along its length, y along its width, z up from its bottom."""
    shifted = points - [box["x"], box["y"], box["z"]]
    c, s = np.cos(box["yaw"]), np.sin(box["yaw"])
    return np.c_[shifted[:, :2] @ np.array([[c, -s], [s, c]]), shifted[:, 2]]


def inside(local: np.ndarray, box: dict) -> np.ndarray:
    """Mark the points, given in the box's frame, that lie in the box; (n,) bool."""
    across = np.abs(local[:, :2]) <= [box["length"] / 2, box["width"] / 2]
    return across.all(axis=1) & (local[:, 2] >= 0) & (local[:, 2] <= box["height"])


def corners(box: dict) -> np.ndarray:
    """Outline of the box from above, closed, (5, 2)."""
    c, s = np.cos(box["yaw"]), np.sin(box["yaw"])
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) / 2 * [box["length"], box["width"]]
    return square @ np.array([[c, s], [-s, c]]) + [box["x"], box["y"]]


def height_above_low(points: np.ndarray, cell: float = 2.0) -> np.ndarray:
    """Height of each point above the lowest twentieth of its square cell: good enough to hide the road."""
    index = np.floor(points[:, :2] / cell).astype(int)
    _, group, count = np.unique(index, axis=0, return_inverse=True, return_counts=True)
    order = np.lexsort((points[:, 2], group.ravel()))
    start = np.cumsum(count) - count
    low = points[order[start + count // 20], 2]
    return points[:, 2] - low[group.ravel()]


def draw_scene(points: np.ndarray, boxes: list[dict], path: Path) -> None:
    """Draw a scene from above with the outline and line number of every box."""
    height = height_above_low(points)
    near = (np.abs(points[:, :2]) < RANGE).all(axis=1) & (height > 0.2) & (height < 4)
    figure, axes = plt.subplots(figsize=(20, 20), layout="constrained")
    axes.scatter(*points[near, :2].T, c=height[near], s=1.5, cmap="turbo", vmin=0, vmax=3, linewidths=0)
    for box in boxes:
        axes.plot(*corners(box).T, color=COLOURS[box["label"]], linewidth=1.2)
        axes.annotate(f"{box['line']} {box['label']}", corners(box)[0], fontsize=9)
    axes.add_patch(plt.Circle((0, 0), 30, fill=False, linestyle=":", color="grey"))
    axes.set(xlim=(-RANGE, RANGE), ylim=(-RANGE, RANGE), aspect="equal", xlabel="x (m)", ylabel="y (m)")
    axes.set_title(f"{path.stem}: height above the low returns of the cell, 0 to 3 m; dotted: 30 m")
    axes.grid(linewidth=0.3)
    figure.savefig(path, dpi=75)
    plt.close(figure)


def draw_box(axes: np.ndarray, points: np.ndarray, box: dict) -> None:
    """Draw one box in three views into three axes."""
    local = to_box(points, box)
    size = np.array([box["length"], box["width"], box["height"]])
    local = local[(np.abs(local[:, :2]) < size[:2] / 2 + MARGIN).all(axis=1)]
    local = local[(local[:, 2] > -0.6) & (local[:, 2] < size[2] + 1)]
    hit = inside(local, box)
    low, high = np.r_[-size[:2] / 2, 0], np.r_[size[:2] / 2, size[2]]
    for ax, (i, j), (name, hidden) in zip(axes, [(0, 1), (0, 2), (1, 2)], [("above", None), ("side", 1), ("end", 0)]):
        seen = np.ones(len(local), bool)
        if hidden is not None:  # a slice: what stands in front of or behind the box would hide it
            seen = np.abs(local[:, hidden]) < size[hidden] / 2 + 0.25
        for colour, rows in (("lightgrey", seen & ~hit), ("tab:red", seen & hit)):
            ax.scatter(local[rows, i], local[rows, j], s=3, color=colour, linewidths=0)
        ax.plot([low[i], high[i], high[i], low[i], low[i]], [low[j], low[j], high[j], high[j], low[j]], "k", lw=0.8)
        ax.set_aspect("equal")
        ax.set_title(name, fontsize=8)
    extent = f"{size[0]:.2f} × {size[1]:.2f} × {size[2]:.2f} m"
    axes[0].set_title(f"line {box['line']}: {box['label']}, {hit.sum()} returns, {extent}", fontsize=9)


def main() -> None:
    """Draw every scene and every box."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    boxes = read_boxes(STREET / "boxes.csv")
    for scene in dict.fromkeys(box["scene"] for box in boxes):
        points = np.load(STREET / f"{scene}.npz")["points"]
        mine = [box for box in boxes if box["scene"] == scene]
        draw_scene(points, mine, out / f"{scene}.png")
        for sheet, start in enumerate(range(0, len(mine), ROWS)):
            page = mine[start : start + ROWS]
            figure, axes = plt.subplots(len(page), 3, figsize=(15, 4 * len(page)), layout="constrained", squeeze=False)
            for row, box in zip(axes, page):
                draw_box(row, points, box)
            figure.savefig(out / f"{scene}_boxes_{sheet}.png", dpi=60)
            plt.close(figure)
        print(f"{scene}: {len(mine)} boxes")


if __name__ == "__main__":
    main()
