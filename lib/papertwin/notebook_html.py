"""Turn an executed notebook into one HTML page that asks nothing of the network.

nbconvert does the cells. Three things it would fetch from elsewhere are done here instead: equations become MathML,
plotly figures use a copy of plotly.js that lies beside the report, and scripts or pictures from other hosts are cut.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from papertwin import files, paths
from papertwin.errors import RunError

TEMPLATES = paths.PACKAGE / "templates" / "report"
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
OPEN, CLOSE = "\ue000", "\ue001"  # private-use characters around the number of an equation, until the cells are HTML

_MATH = re.compile(
    r"""
      (?P<fenced>^[ ]{0,3}(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^[ ]{0,3}(?P=fence)[`~]*[ \t]*$|\Z))
    | (?P<span>(?<!`)(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))
    | (?P<escaped>\\\\|\\\$)
    | \$\$(?P<display>.+?)\$\$
    | (?P<environment>\\begin\{(?P<kind>equation|align|gather)(?P<star>\*?)\}.+?\\end\{(?P=kind)(?P=star)\})
    | \$(?P<inline>(?!\s)(?:\\.|[^$\\\n]|\n(?!\s*\n))+?(?<!\s))\$(?!\d)
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(  # to a file, seen from notebooks/; what is an equation or code is taken first, and left as it is
    rf"""{_MATH.pattern} | (?<=(?<!\\)\]\()(?P<target>[^()\s:\#]+)(?=[)\#]|\s+["'(])""", _MATH.flags
)
_REMOTE = re.compile(
    r"""(<(?:script|link|img|iframe|source|video|audio|embed|object|track|input|image|use)\b[^>]*?)
        \s(?:src|href|srcset|data|poster|xlink:href)\s*=\s*(?:"\s*(?:https?:)?//[^"]*"|'\s*(?:https?:)?//[^']*')""",
    re.VERBOSE | re.IGNORECASE,
)
_DIALECT = [  # spellings that the translator does not know, and one that it does
    (re.compile(r"\\tag\*?\{[^{}]*\}|\\label\{[^{}]*\}"), ""),
    (re.compile(r"\\(begin|end)\{(?:aligned|gathered)\}"), r"\\\1{split}"),
    (re.compile(r"\\(begin|end)\{(align|equation|gather)\}"), r"\\\1{\2*}"),
    (re.compile(r"\\arg(?![A-Za-z])"), r"\\operatorname{arg}"),
    (re.compile(r"(\\math(?:bf|rm|cal|bb|sf)|\\boldsymbol)\s+([A-Za-z0-9])"), r"\1{\2}"),
]


def convert(notebook: Path, page: Path, plotly_js: Path, home: Path) -> None:
    """Write a notebook as a self-contained HTML page.

    Args:
        notebook: an executed .ipynb.
        page: the .html file to write, atomically.
        plotly_js: where plotly.js lies or is to be written; only touched if the notebook shows a plotly figure.
        home: the page that the link back leads to.

    Raises:
        RunError: the notebook cannot be read or converted.
        RunError: the page cannot be written.
    """
    import nbformat

    try:
        content = nbformat.read(notebook, as_version=4)
    except Exception as error:  # nbformat raises whatever a malformed file makes it stumble over
        raise RunError(f"{notebook} cannot be read as a notebook: {error}. Run the paper again.") from error
    equations: list[str] = []
    has_plotly = False
    for cell in content.cells:
        if cell.cell_type == "markdown":
            cell.source = hide_equations(relink(cell.source, page, home), equations)
        for output in cell.get("outputs", []):
            has_plotly = _prepare(output.get("data", {})) or has_plotly
    if has_plotly:
        write_plotly(plotly_js)
    resources = {
        "metadata": {"name": notebook.stem},
        "report_home": _relative(home, page),
        "report_plotly": _relative(plotly_js, page) if has_plotly else "",
        "report_css": stylesheet(),
    }
    try:
        body, _ = _exporter().from_notebook_node(content, resources=resources)
    except Exception as error:  # nbconvert lets through whatever a malformed cell makes it stumble over
        raise RunError(f"{notebook} cannot be shown as HTML: {error}. Run the paper again.") from error
    files.write_text(page, cut_remote(show_equations(body, equations)))


def relink(markdown: str, page: Path, home: Path) -> str:
    """Make links between files, written as seen from notebooks/, lead to the same places from a page.

    Args:
        markdown: of a cell; a link to another notebook becomes one to its page, equations and code stay.
        page: the .html file in which it will stand.
        home: the report's page, beside the folders of the runs.
    """

    def replace(match: re.Match[str]) -> str:
        if match["target"] is None:
            return match[0]
        target = (paths.root() / "notebooks" / match["target"]).resolve()
        if target.suffix == ".ipynb":
            target = home.parent / target.stem / f"{target.stem}.html"
        return _relative(target, page)

    return _LINK.sub(replace, markdown)


def hide_equations(markdown: str, found: list[str]) -> str:
    """Replace every equation outside code by a numbered mark and append its MathML to `found`.

    >>> found = []
    >>> hide_equations("cost `$5` and $x^2$", found).encode("unicode_escape"), len(found)
    (b'cost `$5` and \\\\ue0000\\\\ue001', 1)
    """

    def replace(match: re.Match[str]) -> str:
        tex = match["display"] or match["environment"] or match["inline"]
        if tex is None:
            return match[0]
        found.append(mathml(tex, display=match["inline"] is None))
        return f"{OPEN}{len(found) - 1}{CLOSE}"

    return _MATH.sub(replace, markdown)


def show_equations(html: str, equations: list[str]) -> str:
    """Put the MathML where the marks are; in attributes (anchors of headings) the marks are dropped."""
    mark = re.compile(f"{OPEN}(\\d+){CLOSE}")
    html = re.sub(r"<[^<>]*" + OPEN + r"[^<>]*>", lambda tag: mark.sub("", tag[0]), html)
    return mark.sub(lambda match: equations[int(match[1])], html)


def mathml(tex: str, *, display: bool) -> str:
    r"""Translate LaTeX to MathML; an equation that is not understood is shown as its source.

    Args:
        tex: without the dollar signs; a `\tag{…}` becomes the equation's number.
        display: on a line of its own.
    """
    from html import escape

    from latex2mathml.converter import convert as translate

    number = re.search(r"\\tag\*?\{([^{}]*)\}", tex)
    bare = tex.strip()
    for pattern, plain in _DIALECT:
        bare = pattern.sub(plain, bare)
    try:
        shown = translate(bare, display="block" if display else "inline")
    except Exception:  # the translator raises many kinds for what it does not know; the source is always readable
        shown = ""
    if not shown or re.search(r">\s*(?:\\[A-Za-z]|&<)", shown):  # or it lets what it does not know through
        shown = f'<code class="tex">{escape(tex)}</code>'
    shown = shown.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")
    if not display:
        return shown
    label = f'<span class="number">({escape(number[1])})</span>' if number else ""
    return f'<span class="equation">{shown}{label}</span>'


def cut_remote(html: str) -> str:
    """Remove the address from every element that would load something from another host; ordinary links stay."""
    while (cut := _REMOTE.sub(r"\1", html)) != html:
        html = cut
    return html


def write_plotly(path: Path) -> None:
    """Write plotly.js from the installed package, unless the same version is already there."""
    from plotly.offline import get_plotlyjs, get_plotlyjs_version

    version = get_plotlyjs_version()
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            if f"v{version}" in file.read(400):
                return
    files.write_text(path, get_plotlyjs())


@cache
def stylesheet() -> str:
    """The CSS of the report and its notebooks, with the colours of highlighted code for both schemes."""
    from pygments.formatters import HtmlFormatter

    light = HtmlFormatter(style="xcode").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    own = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{own}"


def newest_source() -> float:
    """When the templates or this module last changed (seconds since the epoch): older pages are made anew."""
    return max(path.stat().st_mtime for path in (Path(__file__), *TEMPLATES.iterdir()))


def _prepare(data: dict[str, Any]) -> bool:
    """Make one output showable offline; tell whether it is a plotly figure."""
    data.pop(WIDGET, None)
    if PLOTLY not in data:
        return False
    figure = data[PLOTLY]
    spec = {"data": figure.get("data", []), "layout": figure.get("layout", {})}
    text = json.dumps(spec).replace("<", "\\u003c")
    data.clear()
    data["text/html"] = f'<div class="plotly"><script type="application/json">{text}</script></div>'
    return True


@cache
def _exporter() -> Any:
    from nbconvert import HTMLExporter

    return HTMLExporter(template_name="lab", template_file=str(TEMPLATES / "notebook.html.j2"))


def _relative(target: Path, page: Path) -> str:
    import os

    return Path(os.path.relpath(target, page.parent)).as_posix()
