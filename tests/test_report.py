"""The report: complete, offline, and never stopped by a bad file."""

import json
import os
import re
import shutil
from html.parser import HTMLParser

import nbformat
import nbformat.v4 as v4
import pytest
from PIL import Image

from papertwin import ledger, report, results
from papertwin.errors import LedgerError, RunError

CLAIMS = [
    {"id": "C1", "statement": "Toys roll.", "source": "Table 1", "published": "0.9", "measured": 0.934567,
     "interval": [0.91, 0.95], "shown": "0.935 [0.91, 0.95]", "rule": "At least 0.8.", "verdict": "REPRODUCED",
     "note": "over ten toys", "stable": True},
    {"id": "C2", "statement": "Toys fly.", "source": "Table 2", "published": "yes", "measured": False,
     "interval": None, "rule": "They fly.", "verdict": "NOT REPRODUCED", "note": "", "stable": False},
    {"id": "C3", "statement": "Toys last.", "source": "abstract", "published": "yes", "measured": None,
     "interval": None, "rule": "They last.", "verdict": "NOT JUDGED", "note": "needs profile full", "stable": True},
]  # fmt: skip


class Page(HTMLParser):
    """Collect elements, attributes and text of a page."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags, self.words = [], []
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def values(self, tag, attribute):
        return [attrs[attribute] for name, attrs in self.tags if name == tag and attribute in attrs]


def write_run(root, address="toy", **changes):
    folder = root / address
    folder.mkdir(parents=True)
    Image.new("RGB", (300, 100), "red").save(folder / "fig1.png")
    (folder / "fig1.pdf").write_bytes(b"%PDF")
    (folder / "fig1.json").write_text("{}")
    (folder / "table1.csv").write_text("kind,share\nball,0.123456\nkite,7\n")
    listed = {"png": {"path": "fig1.png"}, "pdf": {"path": "fig1.pdf"}, "data": {"path": "fig1.json"}}
    results = {
        "schema": 1, "paper": "toy", "title": "Toys", "profile": "quick", "parameters": {"speed": 3}, "overrides": {},
        "device": "cpu", "seconds": 84.4, "peak_memory_mb": 512, "claims": CLAIMS,
        "figures": [{"id": "fig1", "caption": "A red toy.", "files": listed}],
        "tables": [{"id": "table1", "caption": "Shares.", "files": {"data": {"path": "table1.csv"}}}],
        "provenance": {"commit": "0123456789abcdef", "dirty": True, "packages": {"numpy": "2.4"}, "platform": "Linux",
                       "python": "3.11.7", "data": {"box": {"box/a.npz": "f" * 64}, "user": {}, "kitti": "absent"}},
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps({**results, **changes}))
    cells = [v4.new_markdown_cell("# Toys\n$x^2$"), v4.new_code_cell("1", execution_count=1)]
    nbformat.write(v4.new_notebook(cells=cells), folder / "toy.ipynb")
    return folder


@pytest.fixture
def root(toy_ledger, tmp_path, monkeypatch):
    """A figures folder of a repository whose only paper is `toy`."""
    monkeypatch.setattr(ledger, "slugs", lambda: ["toy"])
    monkeypatch.setattr(ledger, "load", lambda slug: ledger.parse(toy_ledger, "toy.toml"))
    monkeypatch.setattr(report.paths, "notebook", lambda slug: tmp_path / "notebooks" / f"{slug}.ipynb")
    return tmp_path / "figures"


def problems(page):
    return re.findall(r'class="problem"[^>]*>(.*?)</p>', page.source, re.DOTALL)


def test_page_tells_idea_figures_claims_and_origin(root):
    write_run(root)
    index = report.write(root)
    assert index == root / "index.html"
    page = Page(index)
    for part in ("Toys & <Games>", "A. One, B. Two", "Journal of Toys , 2020", "Toys are fun.", "Figure 1. A red toy.",
                 "Rule. At least 0.8.", "over ten toys", "0.935 0.91 to 0.95", "1.4 minutes", "512 MB", "speed 3",
                 "0123456789ab with uncommitted changes", "numpy 2.4", "box/a.npz", "kitti absent", "Needs a factory.",
                 "ball 0.1235 kite 7"):  # fmt: skip
        assert part in page.text
    assert problems(page) == []


def test_verdicts_are_worded_counted_and_marked(root):
    write_run(root)
    page = Page(report.write(root))
    assert "✓ Reproduced 1" in page.text
    assert "– Not judged 1" in page.text
    assert "✕ Not reproduced 1" in page.text
    assert "≈ Inconclusive 0" in page.text
    badges = [a["class"] for tag, a in page.tags if tag == "b" and a.get("class", "").startswith("badge")]
    assert badges == ["badge reproduced", "badge not-reproduced", "badge not-judged"]


def test_every_local_link_leads_to_a_file(root):
    write_run(root)
    write_run(root, "toy@full", profile="full")
    for path in (report.write(root), root / "toy/toy.html"):
        page = Page(path)
        local = [v for v in page.values("a", "href") + page.values("img", "src") if not v.startswith(("http", "#"))]
        assert local
        for link in local:
            assert (path.parent / link).is_file(), link
    assert {"toy/fig1.png", "toy/fig1.pdf", "toy/fig1.json", "toy/toy.html"} <= set(
        Page(root / "index.html").values("a", "href")
    )


def test_no_page_asks_for_anything_from_the_network(root):
    write_run(root)
    report.write(root)
    pages = list(root.rglob("*.html"))
    assert len(pages) == 2
    for path in pages:
        page = Page(path)
        for tag, attrs in page.tags:
            for name in ("src", "srcset", "data", "poster", "action"):
                assert "//" not in attrs.get(name, ""), (path.name, tag)
            assert tag == "a" or not attrs.get("href", "").startswith(("http", "//"))
        assert "@import" not in page.source
        assert not re.search(r"url\(\s*['\"]?(?:https?:)?//", page.source)


def test_thumbnail_has_its_size_and_words(root):
    write_run(root)
    page = Page(report.write(root))
    (picture,) = [attrs for tag, attrs in page.tags if tag == "img"]
    assert (picture["width"], picture["height"], picture["alt"]) == ("300", "100", "A red toy.")


def test_figures_and_tables_are_in_the_order_of_their_numbers(root):
    listed = [{"id": name, "files": {"png": {"path": "fig1.png"}}} for name in ("fig10", "fig2", "fig1")]
    write_run(root, figures=listed)
    page = Page(report.write(root))
    assert re.findall(r"Figure \d+", page.text) == ["Figure 1", "Figure 2", "Figure 10"]


@pytest.mark.parametrize(
    ("shapes", "wide"),
    [
        ([3, 1.4, 1.4, 3], "WnnW"),
        ([1.4, 3, 1.4], "WWW"),
        ([0.6, 3], "nW"),
        ([1.9, 1.8, 2.1], "nnW"),
        ([1.4, 1.4, 1.4], "nnW"),
        ([], ""),
    ],
)
def test_no_figure_leaves_an_empty_place_beside_it(shapes, wide):
    pictures = [report.Picture(f"fig{i}", "", "", {}, int(100 * shape), 100) for i, shape in enumerate(shapes)]
    assert "".join("nW"[picture.wide] for picture in report.arrange(pictures)) == wide


def test_paper_that_was_not_run_says_so(root):
    page = Page(report.write(root))
    assert "has not been run here yet" in page.text
    assert "papertwin run toy" in page.text


def test_other_profiles_are_listed_under_the_paper(root):
    write_run(root)
    write_run(root, "toy@full", profile="full")
    write_run(root, "toy@quick-0a1b2c3d", overrides={"speed": 9})
    page = Page(report.write(root))
    assert [a["id"] for tag, a in page.tags if tag == "details" and "id" in a] == ["toy@full", "toy@quick-0a1b2c3d"]
    assert page.source.count("<article") == 1
    assert "speed = 9" in page.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"schema": 2, "paper": "toy", "profile": "quick"}', "schema 2"),
        ('{"schema": 1', "not understood"),
        ("[]", "not understood"),
        ('{"schema": 1, "paper": "toy", "profile": "quick", "claims": [{"id": "C1"}]}', "claims.0.statement"),
        ('{"schema": 1, "paper": "toy", "profile": "quick", "claims": 7}', "claims"),
        (json.dumps({"schema": 1, "paper": "toy", "profile": "quick",
                     "claims": [{**CLAIMS[0], "verdict": "SPLENDID"}]}), "verdict"),
        (None, "did not finish"),
    ],
)  # fmt: skip
def test_unreadable_results_are_a_clear_row(root, text, said):
    folder = write_run(root)
    write_run(root, "toy@full", profile="full")
    (folder / "results.json").unlink()
    if text is not None:
        (folder / "results.json").write_text(text)
    page = Page(report.write(root))
    assert len(problems(page)) == 1
    assert said in problems(page)[0]
    assert "Another run: toy@full" in page.text, "the rest of the page is there"


def test_missing_picture_table_and_notebook_do_not_stop_the_page(root):
    folder = write_run(root)
    (folder / "fig1.png").unlink()
    (folder / "table1.csv").unlink()
    (folder / "toy.ipynb").write_text("{")
    page = Page(report.write(root))
    assert len(problems(page)) == 3
    assert "Toys roll." in page.text
    assert "toy/toy.html" not in page.values("a", "href")


def test_broken_picture_and_odd_provenance_are_shown_without_a_crash(root):
    folder = write_run(root, provenance={"packages": None, "data": [1], "commit": None}, seconds=None)
    (folder / "fig1.png").write_bytes(b"no picture")
    page = Page(report.write(root))
    assert "Commit unknown" in page.text


def test_path_in_results_cannot_leave_the_folder(root):
    (root / "secret.png").parent.mkdir(parents=True)
    (root / "secret.png").write_bytes(b"x")
    listed = [{"id": "fig1", "files": {"png": {"path": "../secret.png"}}}]
    write_run(root, figures=listed)
    page = Page(report.write(root))
    assert page.values("img", "src") == []


def test_results_are_escaped(root):
    write_run(root, parameters={"name": "<script>alert(1)</script>"}, claims=[{**CLAIMS[0], "note": "<b>bold</b>"}])
    page = Page(report.write(root))
    assert "script" not in {tag for tag, _ in page.tags}
    assert "<b>bold</b>" in page.text


def test_result_older_than_the_ledger_says_what_is_missing(root):
    write_run(root, claims=CLAIMS[:1], figures=[])
    told = problems(Page(report.write(root)))
    assert any("claims without a verdict: C2, C3" in line for line in told)
    assert any("not saved: fig1" in line for line in told)


def test_latest_failure_is_told(root):
    write_run(root)
    failed = root / ".failed/toy.ipynb"
    failed.parent.mkdir()
    failed.write_text("{}")
    os.utime(root / "toy/results.json", (1, 1))
    assert any(".failed/toy.ipynb" in line for line in problems(Page(report.write(root))))
    os.utime(failed, (0, 0))
    assert problems(Page(report.write(root))) == []


def test_malformed_ledger_and_stray_folder_are_rows(root, monkeypatch):
    def broken(slug):
        raise LedgerError("toy.toml is not valid TOML")

    write_run(root)
    (root / "gone").mkdir()
    monkeypatch.setattr(ledger, "load", broken)
    page = Page(report.write(root))
    assert "toy.toml is not valid TOML" in page.text
    assert "Toys roll." in page.text, "what the run found is still shown"
    assert "belongs to no paper" in page.text


def test_fresh_clone_shows_the_committed_notebook(root, tmp_path):
    folder = write_run(root)
    (tmp_path / "notebooks").mkdir()
    shutil.move(folder / "toy.ipynb", tmp_path / "notebooks/toy.ipynb")
    report.write(root)
    assert (folder / "toy.html").is_file()


def test_notebook_is_converted_only_when_it_is_newer(root, monkeypatch):
    folder = write_run(root)
    calls = []
    real = report.notebook_html.convert
    monkeypatch.setattr(report.notebook_html, "convert", lambda *args: calls.append(args) or real(*args))
    report.write(root)
    report.write(root)
    assert len(calls) == 1
    later = (folder / "toy.html").stat().st_mtime + 10
    os.utime(folder / "toy.ipynb", (later, later))
    report.write(root)
    assert len(calls) == 2


def test_same_results_give_the_same_page(root):
    write_run(root)
    first = report.write(root).read_bytes()
    assert report.write(root).read_bytes() == first


def test_unwritable_folder_is_a_clear_error(root):
    root.parent.mkdir(exist_ok=True)
    root.write_text("a file where the folder should be")
    with pytest.raises(RunError, match="Cannot write"):
        report.write(root)
    assert root.read_text() == "a file where the folder should be"


@pytest.mark.parametrize(("seconds", "text"), [(None, "time unknown"), (84.4, "1.4 minutes")])
def test_a_run_says_how_long_it_took(root, seconds, text):
    write_run(root, seconds=seconds)
    assert f"profile quick, cpu, {text}" in Page(report.write(root)).text


def test_a_measured_value_keeps_its_unit_without_its_interval():
    claim = results.JudgedClaim(id="C1", statement="s", shown="0.25 [-0.5, 1] points", verdict="INCONCLUSIVE")
    assert report.value(claim) == "0.25 points"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["good", "bad", "open", "mute"])
def test_verdict_colours_have_accessible_contrast(scheme, name):
    """WCAG 2.1 AA: at least 4.5 between the text and its badge, and between the text and the page."""
    css = (report.notebook_html.TEMPLATES / "style.css").read_text(encoding="utf-8")
    palette = dict(
        re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", css.split("prefers-color-scheme: dark")[scheme == "dark"])
    )
    for ground in (palette[f"{name}-bg"], palette["paper"]):
        assert contrast(palette[name], ground) >= 4.5


def contrast(one, other):
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# ---- tables that papers share ----------------------------------------------------------------------------------------


def share(toy_ledger, monkeypatch):
    """Give the toy paper a table that is joined, and words about its rows."""
    table = """[[table]]
id = "table_all"
caption = "c"
source = "s"
status = "regenerated"
joined = "toy trainers"
note = "No toy is at 80 %."
[table.rows]
Drop = { what = "It drops." }
"+ Grow" = { what = "It grows.", before = "a dense toy" }
Lost = { what = "It was never here." }
"""
    at = toy_ledger.index("[[claim]]")
    text = toy_ledger[:at] + table + toy_ledger[at:]
    monkeypatch.setattr(ledger, "load", lambda slug: ledger.parse(text, "toy.toml"))


def test_tables_that_papers_share_are_joined_and_linked(root, toy_ledger, monkeypatch):
    share(toy_ledger, monkeypatch)
    folder = write_run(root)
    page = Page(report.write(root))
    assert any("toy has not been run" in line for line in problems(page))
    assert not (root / "toy_trainers.csv").exists()
    assert "It drops." not in page.text
    rows = [f"{row},by hand\n" for row in ("Drop,0.9,1,81.25", "Drop + Grow,0.9,1,82.5", "Lone,0.9,1,80")]
    (folder / "table_all.csv").write_text("trainer,sparsity,seed,test accuracy,protocol\n" + "".join(rows))
    page = Page(report.write(root))
    assert problems(page)[-1].startswith("No ledger says what Lone is")
    assert "Toy trainers side by side" in page.text
    assert "Drop 81.2 1 toy Drop + Grow † 82.5 1 toy" in page.text
    assert "By hand" in page.text
    assert "toy-trainers" in page.values("article", "id")
    assert "toy_trainers.csv" in page.values("a", "href")
    assert (root / "toy_trainers.csv").read_text().splitlines()[1] == "Drop,0.9,1,81.250,,,toy,,by hand"


def test_trainers_are_explained_and_their_notebooks_linked(root, toy_ledger, monkeypatch):
    share(toy_ledger, monkeypatch)
    folder = write_run(root)
    rows = [f"{name},0.9,{seed},{80 + seed},by hand" for name in ("Drop", "Drop + Grow") for seed in (1, 2, 3)]
    (folder / "table_all.csv").write_text("\n".join(["trainer,sparsity,seed,test accuracy,protocol", *rows]) + "\n")
    page = Page(report.write(root))
    assert "Drop It drops. + Grow It grows. † First: a dense toy." in page.text
    assert "No toy is at 80 %." in page.text
    assert "Lost" not in page.text
    assert "90 % sparse: highest Drop, 82.0 [79.5, 84.5]; all other intervals overlap its." in page.text
    assert "Drop and Drop + Grow have the same accuracy from every seed at 90 %." in page.text
    linked = page.values("a", "href").count("toy/toy.html")
    (folder / "toy.ipynb").unlink()
    (folder / "toy.html").unlink()
    page = Page(report.write(root))
    assert "toy/toy.html" not in page.values("a", "href")
    assert linked == 4  # its own, one a row, one of the note
    assert "Drop + Grow † 82.0 [79.5, 84.5] 3 toy" in page.text
