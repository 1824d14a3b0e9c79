"""Images in a grid: one row a subject, one column a version of it, differences in blue and red."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure


def gallery(
    rows: Sequence[Sequence[np.ndarray | None]],
    names: Sequence[str],
    titles: Sequence[str],
    captions: Sequence[Sequence[str]],
    size: float = 1.25,
) -> Figure:
    """Draw rows of images.

    Args:
        rows: images (c, h, w) with pixels in [0, 1]; None leaves the place empty. A title that begins with "difference"
            marks a column of differences; those of a row are drawn on one scale, whose ends are ± their largest value.
        names: one a row, written at its left.
        titles: one a column.
        captions: one an image, written under it.
        size: of an image, inches.
    """
    figure, axes = plt.subplots(
        len(rows), len(titles), figsize=(size * len(titles) + 0.7, (size + 0.25) * len(rows) + 0.3), squeeze=False
    )
    for line, (images, texts) in enumerate(zip(rows, captions)):
        signed = [title.startswith("difference") for title in titles]
        changes = [np.abs(image).max() for image, yes in zip(images, signed) if yes and image is not None]
        largest = max(changes, default=0.0) or 1.0
        for ax, image, yes, title, text in zip(axes[line], images, signed, titles, texts):
            _picture(ax, image, largest if yes else None)
            ax.set_xlabel(text, fontsize=8, labelpad=2)
            if line == 0:
                ax.set_title(title, fontsize=9, loc="center")
        axes[line, 0].set_ylabel(names[line])
    return figure


def _picture(ax: plt.Axes, image: np.ndarray | None, largest: float | None) -> None:
    """Draw an image, or a difference of at most `largest`."""
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(image is not None)
    if image is None:
        return
    grey = image.shape[0] == 1
    if largest is not None:
        ax.imshow(image.mean(0), cmap="RdBu_r", vmin=-largest, vmax=largest)
    else:
        ax.imshow(image[0] if grey else image.transpose(1, 2, 0), cmap="gray_r" if grey else None, vmin=0, vmax=1)
