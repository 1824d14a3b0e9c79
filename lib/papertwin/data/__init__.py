"""Data sets: `registry` knows what there is, where it is and whether it is intact."""
