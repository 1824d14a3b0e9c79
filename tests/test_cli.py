"""The command line: every command answers, mistakes are messages without a traceback, exit codes mean something."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import papertwin
from papertwin import canonical, jobs, ledger, paths, publish, results, runner, verify
from papertwin.bench import BenchResult
from papertwin.cli import app
from papertwin.errors import LedgerError, RunError
from papertwin.runner import Failure, Outcome
from papertwin.verify import Comparison

COMMANDS = ("list", "run", "plan", "report", "verify", "data", "bench", "new")


@pytest.fixture(autouse=True)
def figures(tmp_path, monkeypatch):
    """Keep every command away from the repository's figures."""
    monkeypatch.setenv("PAPERTWIN_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "figures"


@pytest.fixture
def calls(monkeypatch, figures):
    """Stand in for runner and report; `calls["outcomes"]` is what the runner returns."""
    made = {"outcomes": [], "reports": 0}

    def run_jobs(todo, **options):
        made.update(jobs=todo, **options)
        return made["outcomes"] or [Outcome(job.address, "done", 1.0) for job in todo]

    def write(folder):
        made["reports"] += 1
        return folder / "index.html"

    monkeypatch.setattr(runner, "run_jobs", run_jobs)
    monkeypatch.setattr(papertwin, "report", SimpleNamespace(write=write), raising=False)
    return made


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_help_names_every_command():
    found = call("--help")
    assert found.exit_code == 0
    assert all(f" {name} " in found.output for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    assert call(command, "--help").exit_code == 0


def test_list_shows_every_paper():
    found = call("list")
    assert found.exit_code == 0
    assert all(slug in found.output for slug in ledger.slugs())
    paper = ledger.load("don").paper
    assert f"{paper.year}  {paper.title} " in found.output


@pytest.mark.parametrize("width", [80, 100])
def test_list_has_a_line_a_paper_and_counts_its_verdicts(figures, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    verdicts = ["REPRODUCED"] * 11 + ["INCONCLUSIVE"] * 10 + ["NOT JUDGED"] * 4
    judged = [{"id": f"C{n}", "statement": "s", "verdict": verdict} for n, verdict in enumerate(verdicts)]
    results.write(figures / "don", results.Results(schema=results.SCHEMA, paper="don", profile="quick", claims=judged))
    (figures / publish.STATE).mkdir(parents=True)
    (figures / publish.STATE / "don.json").write_text('{"finished": "2026-11-26T00:54:04Z"}')
    head, *lines = call("list").output.splitlines()
    assert head.split() == ["paper", "year", "title", "yes", "no", "open", "n/a", "last", "run"]
    papers = lines[: len(ledger.slugs())]
    assert [line.split()[0] for line in papers] == ledger.slugs()
    don = next(line for line in papers if line.startswith("don "))
    assert don.split()[-5:] == ["11", "0", "10", "4", "2026-11-26"]
    assert f"{ledger.load('don').paper.title[:15]}" in don
    assert lines[len(papers) :] == [
        *("", "Claims: yes REPRODUCED · no NOT REPRODUCED · open INCONCLUSIVE · n/a NOT JUDGED")
    ]


def test_list_shows_a_malformed_ledger_and_goes_on(monkeypatch):
    def load(slug):
        if slug == "broken":
            raise LedgerError("broken.toml is not valid TOML [line 3]")
        return real(slug)

    real = ledger.load
    monkeypatch.setattr(ledger, "slugs", lambda: ["broken", "don"])
    monkeypatch.setattr(ledger, "load", load)
    found = call("list")
    assert found.exit_code == 0
    assert "broken.toml is not valid TOML [line 3]" in found.output
    assert str(real("don").paper.year) in found.output


@pytest.mark.parametrize("state", ["[]", '{"finished": 3}', "{"])
def test_list_survives_a_damaged_state(figures, state):
    (figures / publish.STATE).mkdir(parents=True)
    (figures / publish.STATE / "don.json").write_text(state)
    assert call("list").exit_code == 0


def test_run_passes_the_options_on_and_ends_with_the_report(calls):
    found = call("run", "don", "-p", "seed=3", "--jobs", 2, "--force", "--device", "cpu", "--timeout", 9)
    assert found.exit_code == 0, found.output
    (job,) = calls["jobs"]
    assert job.parameters == {"seed": 3, "device": "cpu"}
    assert (job.timeout, calls["n_jobs"], calls["force"], calls["reports"]) == (9, 2, True, 1)


def test_run_without_a_slug_runs_every_paper(calls):
    assert call("run").exit_code == 0
    assert [job.slug for job in calls["jobs"]] == ledger.slugs()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["run", "dno"], "No paper is called dno"),
        (["run", "don", "-p", "treshold=1"], "Did you mean 'threshold'"),
        (["run", "don", "-p", "threshold=high"], "expected float"),
        (["run", "don", "-p", "threshold=2"], "don: threshold is 2.0; it must be at least 0 and below 1"),
        (["plan", "don", "-p", "threshold=high"], "expected float"),
        (["plan", "don", "-p", "treshold=1"], "Did you mean 'threshold'"),
        (["plan", "don", "-p", "threshold=2"], "don: threshold is 2.0; it must be at least 0 and below 1"),
        (["run", "don", "--update", "-p", "seed=3"], "plain quick runs only"),
        (["plan", "dno"], "No paper is called 'dno'"),
        (["new", "2fast"], "cannot name a paper"),
        (["new", "don"], "exists already"),
        (["verify", "absent.png"], "Cannot read absent.png"),
        (["data", "check", "strete"], "No data set is called 'strete'"),
    ],
)
def test_a_mistake_is_a_message_and_nothing_is_run(calls, figures, arguments, reason):
    found = call(*arguments)
    assert found.exit_code == 1
    assert reason in found.output
    assert found.output.startswith("Error: ")
    assert "Traceback" not in found.output
    assert "jobs" not in calls
    assert not figures.exists()


@pytest.mark.parametrize(
    "arguments", [["run", "--profile", "huge"], ["run", "--jobs", "0"], ["run", "--device", "tpu"], ["data", "fetch"]]
)
def test_a_wrong_option_is_a_usage_error(calls, arguments):
    found = call(*arguments)
    assert found.exit_code == 2
    assert "jobs" not in calls


def test_a_failed_notebook_gives_an_exit_code_and_names_the_cell(calls):
    calls["outcomes"] = [Outcome("don", "failed", 2.0, Failure("cell", "ValueError: no", cell=7, source="raise"))]
    found = call("run", "don")
    assert found.exit_code == 1
    assert "don: cell 7 failed (cell): ValueError: no" in found.output
    assert calls["reports"] == 1


def test_an_interruption_has_its_own_exit_code(calls, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run_jobs", interrupted)
    found = call("run", "don")
    assert found.exit_code == 130
    assert "Earlier results are untouched" in found.output


def test_update_stores_what_succeeded_and_only_that(calls, monkeypatch, figures):
    stored = []
    monkeypatch.setattr(canonical, "update_source", lambda executed, committed: stored.append((executed, committed)))
    assert call("run", "don", "--update").exit_code == 0
    assert stored == [(figures / "don" / "don.ipynb", paths.notebook("don"))]
    calls["outcomes"] = [Outcome("don", "failed", 2.0, Failure("cell", "no"))]
    assert call("run", "don", "--update").exit_code == 1
    assert len(stored) == 1


def test_plan_shows_parameters_and_cost():
    found = call("plan", "don", "--profile", "full")
    assert found.exit_code == 0
    assert "list[str]" in found.output
    assert all(parameter.name in found.output for parameter in jobs.declared("don"))
    assert f"about {ledger.load('don').profiles['full'].minutes:g} minutes" in found.output


def test_plan_asks_the_paper_for_its_own(monkeypatch):
    from papertwin.papers import don

    planned = {"steps": 50_000, "work": 4_650_000_000_000, "time": "4 minutes"}
    monkeypatch.setattr(don, "plan", lambda params: planned, raising=False)
    text = call("plan", "don").output
    assert all(each in text for each in ("50,000", "4.65 trillion", "4 minutes"))


def test_plan_takes_changed_parameters(monkeypatch):
    from papertwin.papers import don

    assert "without -p; this paper plans no cost of yours" in call("plan", "don", "-p", "min_size=60").output
    monkeypatch.setattr(don, "plan", lambda params: {"steps": params.min_size * 1000}, raising=False)
    text = call("plan", "don", "-p", "min_size=60", "--profile", "full").output
    assert "changed  min_size=60 " in text
    assert "60,000" in text
    assert "without -p; for yours see the plan below" in text
    assert "without -p" not in call("plan", "don").output


@pytest.mark.parametrize(("minutes", "words"), [(1.5, "1.5 minutes"), (600, "10 hours"), (680_000, "1.3 years")])
def test_plan_says_how_long_in_words(monkeypatch, minutes, words):
    book = ledger.load("don")
    quick = book.profiles["quick"].model_copy(update={"minutes": minutes})
    changed = book.model_copy(update={"profiles": {**book.profiles, "quick": quick}})
    monkeypatch.setattr(ledger, "load", lambda slug: changed)
    assert f"about {words} " in call("plan", "don").output


def test_report_writes_and_names_the_page(calls, figures):
    found = call("report")
    assert found.exit_code == 0
    assert str(figures / "index.html") in found.output


@pytest.mark.parametrize(("differences", "code"), [((), 0), (("axes[0]: published 1, now 2",), 1)])
def test_verify_says_what_it_found(monkeypatch, differences, code):
    found = Comparison("don/fig1", 10, 0.5, 0.1, differences)
    asked = []
    monkeypatch.setattr(verify, "verify", lambda png, device, on_event: asked.append(device) or found)
    result = call("verify", "fig1.png")
    assert result.exit_code == code
    call("verify", "fig1.png", "--device", "cpu")
    assert asked == [None, "cpu"]
    assert str(found) in result.output


def test_data_list_says_what_is_here_and_what_belongs_where(monkeypatch, tmp_path):
    from papertwin.data import registry

    def row():
        return next(line for line in call("data", "list").output.splitlines() if line.startswith("kitti"))

    monkeypatch.setenv("PAPERTWIN_DATA", str(tmp_path))
    assert "absent" in row()
    entry = registry.describe("kitti")
    told = " ".join(call("data", "list", "kitti").output.split())
    for text in ("absent", "$PAPERTWIN_DATA/kitti", str(tmp_path / "kitti"), entry.url, entry.note, entry.licence):
        assert text in told
    (tmp_path / "kitti" / "velodyne").mkdir(parents=True)
    assert "present" in row()
    assert "present" in call("data", "list", "kitti").output
    street = call("data", "list", "street").output
    assert "data/street" in street
    assert all(file.path in street for file in registry.describe("street").files)


def test_data_lists_checks_and_fetches(monkeypatch):
    from papertwin.data import registry

    listed = call("data")
    assert all(name in listed.output for name in registry.names())
    monkeypatch.setattr(registry, "check", lambda name: [f"{name}: corrupted"])
    found = call("data", "check", "street")
    assert found.exit_code == 1
    assert "street: corrupted" in found.output
    monkeypatch.setattr(registry, "check", lambda name: [])
    assert call("data", "check").exit_code == 0
    monkeypatch.setattr(registry, "fetch", lambda name: f"here/{name}")
    assert "here/kitti" in call("data", "fetch", "kitti").output


def test_bench_prints_a_table_and_writes_json(monkeypatch, tmp_path):
    rows = [{"cloud": "a", "ours s": 1.5}]
    result = BenchResult("don", "a machine", 2, rows, {"figure": "peer / ours", "ratio": 30.0, "goal": 20.0})

    def run_benchmark(name):
        if name != "don":
            raise RunError(f"No benchmark is called {name!r}.")
        return result

    monkeypatch.setattr(papertwin.bench, "run_benchmark", run_benchmark)
    found = call("bench", "don", "--json", tmp_path / "don.json")
    assert found.exit_code == 0, found.output
    assert "1.5" in found.output
    assert json.loads((tmp_path / "don.json").read_text()) == dataclasses.asdict(result)
    assert call("bench", "nothing").exit_code == 1
