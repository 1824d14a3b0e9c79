"""Drawing: one style, figures saved with their provenance and arrays, small helpers that notebooks share."""

from papertwin.figures.save import read_provenance, save_figure
from papertwin.figures.style import direct_label, plain_ticks, published, stamp, use
from papertwin.figures.tables import readable

__all__ = ["direct_label", "plain_ticks", "published", "read_provenance", "readable", "save_figure", "stamp", "use"]
