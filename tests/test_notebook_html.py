"""Notebooks as HTML: equations, plotly and nothing from the network."""

import html
import os
import re

import nbformat
import nbformat.v4 as v4
import pytest
from hypothesis import given
from hypothesis import strategies as st

from papertwin import notebook_html, paths
from papertwin.errors import RunError

PLOTLY = {
    "data": [{"type": "scatter3d", "x": [0], "y": [0], "z": [0], "name": "</script><b>"}],
    "layout": {},
    "config": {"plotlyServerURL": "https://plot.ly"},
}
REMOTE = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)\s*=\s*["']?(?:https?:)?//""", re.I)


def write_notebook(path, *cells):
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(v4.new_notebook(cells=list(cells), metadata=metadata), path)
    return path


def page_of(tmp_path, *cells):
    notebook = write_notebook(tmp_path / "toy/toy.ipynb", *cells)
    page = tmp_path / "toy/toy.html"
    notebook_html.convert(notebook, page, tmp_path / "assets/plotly.min.js", tmp_path / "index.html")
    return page.read_text(encoding="utf-8")


def shown(**data):
    return v4.new_code_cell("show", execution_count=1, outputs=[v4.new_output("display_data", data=data)])


def test_equations_become_mathml_and_code_stays(tmp_path):
    page = page_of(
        tmp_path,
        v4.new_markdown_cell("# Radius $r_l$\n\nSo $\\lVert n \\rVert \\le 1$.\n\n$$x = \\frac{a}{b} \\tag{4}$$"),
        v4.new_markdown_cell("Costs \\$5 to \\$6, `$y$`, ``a ` $w$``.\n\n```sh\necho $HOME $z$\n```\n"),
    )
    assert page.count("<math") == 3
    assert page.count('display="block"') == 1
    assert '<span class="number">(4)</span>' in page
    assert "<mfrac>" in page
    assert "$y$" in page
    assert "$w$" in page
    assert "Costs $5 to $6" in page
    assert notebook_html.OPEN not in page
    heading = re.search(r"<h1[^>]*>", page)[0]
    assert "math" not in heading


def test_links_between_files_lead_to_the_same_places_from_the_page(tmp_path):
    page = page_of(
        tmp_path,
        v4.new_markdown_cell(
            "[ledger](../lib/papertwin/papers/don.toml), [other](srigl.ipynb), [part](srigl.ipynb#The-data), "
            "[here](#method), [paper](https://arxiv.org/abs/1209.1759)"
        ),
    )
    links = {text: target for target, text in re.findall(r'<a href="([^"]+)">(\w+)</a>', page)}
    ledger = os.path.normpath(tmp_path / "toy" / links.pop("ledger"))
    assert ledger == str(paths.root() / "lib/papertwin/papers/don.toml")
    assert (
        links.items()
        >= {
            "other": "../srigl/srigl.html",
            "part": "../srigl/srigl.html#The-data",
            "here": "#method",
            "paper": "https://arxiv.org/abs/1209.1759",
        }.items()
    )


@pytest.mark.parametrize(
    "text",
    [
        "$E[x](t)$",
        "$$\n\\left[a\\right](b)\n$$",
        "\\begin{align}f[i](x)\\end{align}",
        "`d[i](x)` and ``e[`](x)``",
        "```python\nd[i](x)\n```",
        "~~~\nd[i](x)\n~~~",
        "d[i\\](x)",
    ],
)
def test_what_looks_like_a_link_in_equations_and_code_stays(tmp_path, text):
    def linked(markdown):
        return notebook_html.relink(markdown, tmp_path / "toy/toy.html", tmp_path / "index.html")

    assert linked(text) == text
    link, due = "[$x$ in `f(x)`](srigl.ipynb)", "[$x$ in `f(x)`](../srigl/srigl.html)"
    assert linked(f"{link}\n\n{text}\n\n{link}") == f"{due}\n\n{text}\n\n{due}"


@pytest.mark.parametrize("title", ['"the (title)"', "'title'", "(title)"])
def test_a_link_may_have_a_title(tmp_path, title):
    found = notebook_html.relink(f"[a](srigl.ipynb#x  {title})", tmp_path / "toy/toy.html", tmp_path / "index.html")
    assert found == f"[a](../srigl/srigl.html#x  {title})"
    found = notebook_html.relink(f"[a](srigl.ipynb {title})", tmp_path / "toy/toy.html", tmp_path / "index.html")
    assert found == f"[a](../srigl/srigl.html {title})"


def test_markdown_signs_inside_an_equation_are_not_markdown(tmp_path):
    page = page_of(tmp_path, v4.new_markdown_cell("$a*b*c$ and $x_1 + y_1$ and $a < b$"))
    assert "<em>" not in page
    assert page.count("<math") == 3
    assert "&lt;" in page or "&#x0003C;" in page


@pytest.mark.parametrize("tex", [r"\left( x", r"x^", r"\nosuch{x}", r"\begin{nosuch}a & b\end{nosuch}"])
def test_unknown_latex_is_shown_as_its_source(tex):
    assert notebook_html.mathml(tex, display=False) == f'<code class="tex">{html.escape(tex)}</code>'


@pytest.mark.parametrize(
    ("tex", "part"),
    [
        (r"\begin{aligned}a&=b\\c&=d\end{aligned}", "<mtable"),
        (r"\begin{align}a&=b\end{align}", "<mtable"),
        (r"\arg\min_x f", ">arg<"),
        (r"\mathcal N", "&#x1D4A9;"),
        (r"a \sim b", "&#x0223C;"),
        (r"\lVert x \rVert", "&#x02016;"),
    ],
)
def test_common_spellings_are_understood(tex, part):
    shown = notebook_html.mathml(tex, display=True)
    assert part in shown
    assert "(1)" not in shown, "only a tag gives a number"


@pytest.mark.parametrize("notebook", sorted((paths.root() / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_equation_of_the_notebooks_is_understood(notebook):
    found = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            notebook_html.hide_equations(cell.source, found)
    assert [shown for shown in found if 'class="tex"' in shown] == []


def test_font_command_without_braces_is_understood():
    assert notebook_html.mathml(r"\mathbf n", display=False) == notebook_html.mathml(r"\mathbf{n}", display=False)


def test_prices_are_not_equations():
    found = []
    assert notebook_html.hide_equations("from $5 up to $6 each", found) == "from $5 up to $6 each"
    assert notebook_html.hide_equations("a $ b $ c", found) == "a $ b $ c"
    assert found == []


@given(st.text(alphabet="ab `$\n\\~*_{}", max_size=60))
def test_hiding_loses_nothing_outside_equations(text):
    """Whatever the text, replacing each mark by nothing leaves a subsequence of the text; code fences are untouched."""
    found = []
    hidden = notebook_html.hide_equations(text, found)
    rest = iter(text)
    kept = re.sub(f"{notebook_html.OPEN}\\d+{notebook_html.CLOSE}", "", hidden)
    assert all(letter in rest for letter in kept)
    assert len(found) == hidden.count(notebook_html.OPEN)


def test_plotly_uses_the_local_script(tmp_path):
    page = page_of(
        tmp_path, shown(**{notebook_html.PLOTLY: PLOTLY, "text/html": "<script src='https://cdn/x.js'></script>"})
    )
    assert '<script src="../assets/plotly.min.js">' in page
    assert "Plotly.newPlot" in page
    assert "plot.ly" not in page
    assert "</script><b>" not in page, "data cannot end the script element"
    script = (tmp_path / "assets/plotly.min.js").read_text(encoding="utf-8")
    assert "plotly.js v" in script[:400]


def test_plotly_script_is_written_once_per_version(tmp_path):
    path = tmp_path / "plotly.min.js"
    notebook_html.write_plotly(path)
    os.utime(path, ns=(1, 1))
    notebook_html.write_plotly(path)
    assert path.stat().st_mtime_ns == 1
    path.write_text("an older version")
    notebook_html.write_plotly(path)
    assert path.stat().st_size > 1_000_000


def test_notebook_without_plotly_loads_no_script(tmp_path):
    page = page_of(tmp_path, v4.new_code_cell("1 + 1", execution_count=1))
    assert "<script" not in page
    assert not (tmp_path / "assets").exists()


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    page = page_of(
        tmp_path,
        v4.new_markdown_cell("![picture](https://example.org/a.png) [paper](https://example.org/paper)"),
        shown(
            **{"text/html": '<script src="//cdn.example.org/x.js"></script><img alt=a src="https://example.org/b.png">'}
        ),
        shown(**{notebook_html.WIDGET: {"model_id": "1"}, "text/plain": "a widget"}),
        v4.new_code_cell("'<img src=\"https://example.org/in-code.png\">'", execution_count=2),
    )
    assert REMOTE.search(page) is None
    assert '<a href="https://example.org/paper">' in page, "links that a reader follows stay"
    assert "in-code.png" in page
    assert "a widget" in page


@pytest.mark.parametrize("text", ["{", '{"cells": 3}', "[]", ""])
def test_broken_notebook_is_a_clear_error(tmp_path, text):
    path = tmp_path / "toy.ipynb"
    path.write_text(text)
    with pytest.raises(RunError, match=r"toy\.ipynb"):
        notebook_html.convert(path, tmp_path / "toy.html", tmp_path / "p.js", tmp_path / "index.html")
    assert not (tmp_path / "toy.html").exists()
