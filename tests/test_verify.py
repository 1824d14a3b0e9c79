"""`papertwin verify`: equal arrays pass, any other difference is found and placed."""

import json
import math
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from papertwin import jobs, ledger, verify
from papertwin.errors import LedgerError, ParameterError, RunError
from papertwin.papers import don
from papertwin.results import address
from papertwin.runner import Failure, Outcome
from papertwin.verify import compare

ARRAYS = [
    {"title": "a", "series": [{"kind": "line", "x": {"shape": [3], "values": [1.0, None, -2.5e-7]}, "open": True}]}
]


def edited(change):
    copy = json.loads(json.dumps(ARRAYS))
    change(copy)
    return copy


def test_equal_arrays_agree():
    found = compare("don/fig1", ARRAYS, edited(lambda a: None))
    assert found.agrees
    assert (found.numbers, found.deviation) == (3, 0.0)


def test_rounding_is_forgiven_and_reported():
    found = compare("f", [1.0, 1e-12, 1], [1.0 + 5e-7, 0.0, 1.0])
    assert found.agrees
    assert found.deviation == pytest.approx(5e-7)
    assert found.relative == 1.0
    assert "5e-07" in str(found)


def _number(arrays):
    arrays[0]["series"][0]["x"]["values"][0] = 1.00001


def _missing(arrays):
    arrays[0]["series"][0]["x"]["values"][0] = None


def _shorter(arrays):
    arrays[0]["series"][0]["x"]["values"].pop()


def _text(arrays):
    arrays[0]["title"] = "b"


def _flag(arrays):
    arrays[0]["series"][0]["open"] = 1


def _key(arrays):
    arrays[0]["series"][0]["y"] = 1


def _nan(arrays):
    arrays[0]["series"][0]["x"]["values"][0] = math.nan


@pytest.mark.parametrize("change", [_number, _missing, _shorter, _text, _flag, _key, _nan], ids=lambda f: f.__name__)
def test_every_kind_of_difference_is_found_in_both_directions(change):
    other = json.loads(json.dumps(ARRAYS))
    change(other)
    for pair in ((ARRAYS, other), (other, ARRAYS)):
        found = compare("f", *pair)
        assert len(found.differences) == 1
        assert found.differences[0].startswith("axes[0].")
        assert "DIFFER" in str(found)


def test_nan_equals_nan_and_infinity_equals_infinity():
    assert compare("f", [math.nan, math.inf], [math.nan, math.inf]).agrees
    for pair in ((math.inf, -math.inf), (math.inf, 1.0), (1.0, math.inf)):
        assert not compare("f", [pair[0]], [pair[1]]).agrees


def test_many_differences_are_cut_short():
    assert len(compare("f", list(range(50)), list(range(1, 51))).differences) == 10


def picture(folder, name="fig1", arrays=ARRAYS, **changes):
    """Write a PNG with provenance and its arrays, as a run does."""
    parameters = {**vars(don.Params()), **changes.pop("parameters", {})}
    content = {"paper": "don", "figure": name, "profile": parameters["profile"], "parameters": parameters, **changes}
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text("papertwin", json.dumps(content))
    Image.new("RGB", (2, 2)).save(folder / f"{name}.png", pnginfo=chunk)
    (folder / f"{name}.json").write_text(json.dumps({"axes": arrays}))
    return folder / f"{name}.png"


@pytest.fixture
def rerun(monkeypatch):
    """Stand in for the runner: write these arrays as if the notebook had run."""
    seen = {"arrays": ARRAYS, "outcome": None}

    def run_jobs(todo, *, force, figures: Path, on_event):
        (job,) = todo
        seen["job"] = job
        seen["force"] = force
        folder = figures / job.address
        folder.mkdir(parents=True)
        for number in (1, 9):
            (folder / f"fig{number}.json").write_text(json.dumps({"axes": seen["arrays"]}))
        return [seen["outcome"] or Outcome(job.address, "done")]

    monkeypatch.setattr(verify, "run_jobs", run_jobs)
    return seen


def test_a_figure_is_run_again_from_the_parameters_inside_it(tmp_path, rerun):
    png = picture(tmp_path, parameters={"r_small": 0.3, "seed": 4})
    assert verify.verify(png).agrees
    assert rerun["job"].parameters == {"r_small": 0.3, "seed": 4}
    assert rerun["job"].address == address("don", "quick", {"r_small": 0.3, "seed": 4})
    assert rerun["force"]


def test_the_values_of_a_profile_are_no_overrides(tmp_path, rerun):
    png = picture(tmp_path, parameters={**ledger.load("don").parameters("full"), "profile": "full", "device": "cpu"})
    verify.verify(png)
    assert rerun["job"].parameters == {"profile": "full", "device": "cpu"}


def test_changed_arrays_are_reported(tmp_path, rerun):
    rerun["arrays"] = edited(_number)
    assert not verify.verify(picture(tmp_path)).agrees


def test_a_failed_run_is_an_error_that_names_the_cell(tmp_path, rerun):
    rerun["outcome"] = Outcome("don", "failed", failure=Failure("cell", "ValueError: no", cell=7))
    with pytest.raises(RunError, match="cell 7: ValueError: no"):
        verify.verify(picture(tmp_path))


def test_measured_time_is_refused(tmp_path, rerun):
    timed = next(entry.id for entry in ledger.load("don").exhibits if entry.timing)
    with pytest.raises(RunError, match="measured time"):
        verify.verify(picture(tmp_path, timed))
    assert "job" not in rerun


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"paper": "nothing"}, LedgerError, "nothing"),
        ({"name": "fig99"}, RunError, "no figure 'fig99'"),
        ({"parameters": {"old": 1}}, ParameterError, "no longer has"),
    ],
)
def test_what_no_longer_exists_is_a_clear_error(tmp_path, rerun, changes, error, reason):
    with pytest.raises(error, match=reason):
        verify.verify(picture(tmp_path, **changes))


def test_only_pictures_of_a_run_can_be_verified(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "other.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, reason in (("other", "no provenance"), ("text", "as a PNG"), ("absent", "as a PNG")):
        with pytest.raises(RunError, match=reason):
            verify.verify(tmp_path / f"{name}.png")


def test_incomplete_provenance_and_missing_arrays_are_clear_errors(tmp_path, rerun):
    png = picture(tmp_path)
    png.with_suffix(".json").unlink()
    with pytest.raises(RunError, match="plotted arrays"):
        verify.verify(png)
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text("papertwin", json.dumps({"paper": "don"}))
    Image.new("RGB", (2, 2)).save(png, pnginfo=chunk)
    with pytest.raises(RunError, match=r"not understood .*figure: Field required"):
        verify.verify(png)


@pytest.mark.parametrize(
    "content",
    [
        [],
        "don",
        7,
        None,
        {"paper": 3, "figure": "fig1", "profile": "quick", "parameters": {}},
        {"paper": "don", "figure": ["fig1"], "profile": "quick", "parameters": {}},
        {"paper": "don", "figure": "fig1", "profile": {}, "parameters": {}},
        {"paper": "don", "figure": "fig1", "profile": "quick", "parameters": None},
        {"paper": "don", "figure": "fig1", "profile": "quick", "parameters": ["seed"]},
    ],
    ids=repr,
)
def test_a_malformed_provenance_is_a_clear_error(tmp_path, rerun, content):
    png = picture(tmp_path)
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text("papertwin", json.dumps(content))
    Image.new("RGB", (2, 2)).save(png, pnginfo=chunk)
    with pytest.raises(RunError, match="not understood"):
        verify.verify(png)
    assert "job" not in rerun


def test_a_table_is_refused_before_anything_runs(tmp_path, rerun):
    table = ledger.load("don").tables[0].id
    with pytest.raises(RunError, match=f"{table} is a table"):
        verify.verify(picture(tmp_path, table))
    assert "job" not in rerun


def test_the_device_can_be_chosen(tmp_path, rerun):
    png = picture(tmp_path, parameters={"device": "cuda"})
    verify.verify(png)
    assert rerun["job"].parameters["device"] == "cuda"
    verify.verify(png, device="cpu")
    assert rerun["job"].parameters["device"] == "cpu"


def test_the_job_of_a_verification_is_the_job_of_a_run(tmp_path, rerun):
    verify.verify(picture(tmp_path))
    assert rerun["job"] == jobs.from_texts("don", [], jobs.Options())
