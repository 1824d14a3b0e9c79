"""From options to jobs: address and injected parameters agree with what the notebook's own run decides."""

import importlib
import importlib.util

import pytest

from papertwin import jobs, ledger, run
from papertwin.errors import LedgerError, ParameterError, RunError
from papertwin.jobs import Options, collect, from_texts, require_plain
from papertwin.papers import don


def test_a_plain_quick_run_injects_nothing():
    job = from_texts("don", [], Options())
    assert (job.address, job.parameters) == ("don", {})
    assert job.exclusive == ledger.load("don").paper.exclusive


@pytest.mark.parametrize(
    ("assignments", "options", "injected"),
    [
        ([], Options("full"), {"profile": "full"}),
        ([], Options(device="cpu"), {"device": "cpu"}),
        (["seed=3"], Options(), {"seed": 3}),
        (["threshold=0.25"], Options(), {}),
        (["threshold=0.3", "r_small=1"], Options("full"), {"profile": "full", "threshold": 0.3, "r_small": 1.0}),
    ],
)
def test_the_runner_and_the_notebook_name_the_same_folder(assignments, options, injected):
    job = from_texts("don", assignments, options)
    assert job.parameters == injected
    assert run.start("don", {**vars(don.Params()), **job.parameters}).folder.name == job.address


def test_the_fingerprint_tells_runs_apart():
    settings = [([], Options()), ([], Options("full")), ([], Options(device="cpu")), (["seed=3"], Options())]
    assert len({from_texts("don", *each).fingerprint for each in settings}) == 4
    assert from_texts("don", [], Options(timeout=5)).fingerprint == from_texts("don", [], Options()).fingerprint


def test_the_time_limit():
    assert from_texts("don", [], Options(timeout=7)).timeout == 7
    quick, full = (from_texts("don", [], Options(profile)).timeout for profile in ("quick", "full"))
    assert quick >= 600
    assert full == 600 * ledger.load("don").profiles["full"].minutes


def test_papers_are_collected_once_each_and_hyphens_are_accepted(monkeypatch):
    monkeypatch.setattr(ledger, "slugs", lambda: ["don", "nn_robustness"])
    built = []
    monkeypatch.setattr(jobs, "from_texts", lambda slug, *_: built.append(slug))
    collect(["nn-robustness", "nn_robustness", "don"], [], Options())
    collect([], [], Options())
    assert built == ["nn_robustness", "don", "don", "nn_robustness"]


def test_one_broken_paper_does_not_stop_the_others(monkeypatch):
    monkeypatch.setattr(ledger, "slugs", lambda: ["broken", "don"])
    todo, broken = collect([], [], Options())
    assert [job.slug for job in todo] == ["don"]
    assert [(o.address, o.status, o.failure.kind) for o in broken] == [("broken", "failed", "setup")]


def test_the_user_s_own_mistakes_stop_everything(monkeypatch):
    with pytest.raises(LedgerError, match="No paper is called dno"):
        collect(["dno"], [], Options())
    with pytest.raises(ParameterError, match="Did you mean 'threshold'"):
        collect(["don"], ["treshold=1"], Options())
    monkeypatch.setattr(ledger, "slugs", lambda: ["broken", "don"])
    with pytest.raises(LedgerError, match="broken"):
        collect(["broken"], [], Options())


REFUSED = [
    ("sparseopt", "sparsities=[0.9]", r"^sparseopt: sparsities is \[0.9\]; it must hold .* 0.95 and 0.99 among them"),
    ("srigl", "seeds=1", "seeds is 1; it must be at least 2: claims over seeds need intervals"),
    ("don", "threshold=1.5", "threshold is 1.5; it must be at least 0 and below 1"),
]


@pytest.mark.parametrize(("slug", "assignment", "reason"), REFUSED)
def test_a_value_that_a_paper_cannot_use_is_refused_before_anything_runs(slug, assignment, reason):
    with pytest.raises(ParameterError, match=reason):
        collect([slug], [assignment], Options())


def test_a_paper_is_imported_only_where_a_parameter_is_changed(monkeypatch):
    asked = []
    monkeypatch.setattr(jobs, "module", asked.append)
    for assignments, options in (([], Options()), ([], Options("full")), (["threshold=0.25"], Options(device="cpu"))):
        from_texts("don", assignments, options)
    assert asked == []
    from_texts("don", ["threshold=0.3"], Options())
    assert asked == ["don"]


def test_a_paper_whose_module_has_no_parameters_is_refused(monkeypatch):
    monkeypatch.delattr(don, "Params")
    with pytest.raises(RunError, match=r"^don: papertwin\.papers\.don has no class Params.* Add the frozen dataclass"):
        jobs.typed("don", {"n": 3})


def test_a_paper_without_a_module_is_left_to_its_notebook(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert jobs.typed("don", {"n": 3}) is None
    assert from_texts("don", ["threshold=0.3"], Options()).parameters == {"threshold": 0.3}


def test_a_module_that_cannot_be_imported_is_a_message(monkeypatch):
    def fail(name):
        raise SyntaxError("invalid syntax")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(RunError, match=r"papers\.don cannot be imported, SyntaxError: invalid syntax"):
        jobs.module("don")


def test_a_notebook_without_the_common_parameters_is_refused(monkeypatch, tmp_path):
    import nbformat

    from papertwin import paths

    source = "\n".join(
        f"{p.name}: {_quoted(p)} = {p.default!r}  # help" for p in jobs.declared("don") if p.name != "seed"
    )
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "don.ipynb")
    monkeypatch.setattr(paths, "notebook", lambda slug: tmp_path / f"{slug}.ipynb")
    with pytest.raises(ParameterError, match="lacks seed"):
        from_texts("don", [], Options())
    (tmp_path / "don.ipynb").unlink()
    with pytest.raises(RunError, match="No notebook"):
        from_texts("don", [], Options())


def _quoted(parameter):
    return f"'{parameter.annotation}'" if "Literal" in parameter.annotation else parameter.annotation


def test_only_plain_quick_runs_may_be_stored():
    require_plain([from_texts("don", [], Options())])
    for assignments, options in ((["seed=3"], Options()), ([], Options("full")), ([], Options(device="cpu"))):
        with pytest.raises(ParameterError, match="plain quick runs only"):
            require_plain([from_texts("don", assignments, options)])
