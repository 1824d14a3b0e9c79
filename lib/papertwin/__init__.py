"""PaperTwin: executable twins of research papers.

Open a notebook and it starts with `run = papertwin.start("<slug>", globals())`; everything else is in the
topic packages (`papertwin.points`, …), which can be used on their own. Importing this package is cheap:
heavy libraries are imported by the modules that need them.
"""

__version__ = "0.1.0"
__all__ = ["__version__", "start"]


def __getattr__(name: str):
    """Import `start` on first use, so that `papertwin --help` stays fast."""
    if name == "start":
        from papertwin.run import start

        return start
    raise AttributeError(f"module 'papertwin' has no attribute {name!r}")
