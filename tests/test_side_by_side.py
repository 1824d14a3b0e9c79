"""A joined table as it is shown and written: intervals by hand, one rule of comparison, true sentences."""

import csv

import numpy as np
import pytest
from scipy import stats

from papertwin import ledger, side_by_side
from papertwin.errors import RunError
from papertwin.joined import Joined
from papertwin.side_by_side import Cell


def made(trainings, *, protocol="P", papers=None, before=()):
    """A table of trainer → sparsity → accuracies of seeds 1, 2, …, all from `one` if not said otherwise."""
    table = Joined("sparse nets", protocol)
    for trainer, rows in trainings.items():
        for sparsity, values in rows.items():
            for slug in (papers or {}).get(trainer, ["one"]):
                found = table.found.setdefault(slug, {})
                found.update({(trainer, sparsity, str(seed)): each for seed, each in enumerate(values, start=1)})
    for name in trainings:
        table.lines[name] = ledger.Row(what="w", before="more" if name in before else "")
    return table


def near(mean, count=5, spread=0.1):
    """Accuracies with this mean."""
    return [mean + spread * each for each in np.linspace(-1, 1, count)]


# ---- the table -------------------------------------------------------------------------------------------------------


def test_a_row_has_means_intervals_seeds_and_papers():
    table = made(
        {"dense": {"0": [90.5, 91]}, "RigL": {"0.9": [80, 82, 87]}, "SET": {"0.9": [70.0], "0.994": [60, 61, 65]}},
        papers={"SET": ["one", "two"]},
        before=["SET"],
    )
    half = stats.t.ppf(0.975, 2) * np.std([80, 82, 87], ddof=1) / np.sqrt(3)
    assert side_by_side.header(table) == ["trainer", "dense", "90 % sparse", "99.4 % sparse", "seeds", "from"]
    dense, rigl, both = side_by_side.rows(table)
    assert (dense.cells, dense.seeds, dense.papers, dense.before) == (["90.8", "–", "–"], "2", ["one"], "")
    assert rigl.cells == ["–", f"83.0 [{83 - half:.1f}, {83 + half:.1f}]", "–"]
    assert rigl.seeds == "3"
    assert both.cells[:2] == ["–", "70.0 (1)"]
    assert both.cells[2].startswith("62.0 [")
    assert both.cells[2].endswith("] (3)")
    assert (both.seeds, both.papers, both.before) == ("1–3", ["one", "two"], "more")


def test_a_training_on_which_papers_disagree_has_no_number():
    table = made({"SET": {"0.9": [70, 71, 72], "0.99": [60, 61, 62]}}, papers={"SET": ["one", "two"]})
    table.found["two"]["SET", "0.9", "2"] = 75
    (row,) = side_by_side.rows(table)
    assert row.cells[0] == "disagree"
    assert row.cells[1].startswith("61.0 [")
    assert [line[1] for line in side_by_side.records(table)] == ["0.99"]
    assert "1 of them with results that differ, which are not shown" in side_by_side.twice(table)


def test_what_was_done_twice_is_said():
    assert side_by_side.twice(made({"SET": {"0.9": [70, 71]}})) == ""
    both = {"SET": ["one", "two"]}
    one = side_by_side.twice(made({"SET": {"0.9": [70]}}, papers=both))
    assert one.startswith("1 training, ")
    assert one.endswith("was done in more than one notebook, each time with the same accuracy; it counts once.")
    two = side_by_side.twice(made({"SET": {"0.9": [70, 71]}}, papers=both))
    assert two.startswith("2 trainings, ")
    assert two.endswith("; each counts once.")


# ---- in words --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [((1, 3), (2, 4), True), ((1, 3), (3, 4), True), ((1, 2.9), (3, 4), False), ((1, 9), (3, 4), True)],
)
def test_intervals_overlap_that_have_a_number_in_common(one, other, overlap):
    first, second = Cell(5, 2.0, one), Cell(5, 3.0, other)
    assert first.overlaps(second) == second.overlaps(first) == overlap


@pytest.mark.parametrize("interval", [None, (-1, 1), (4, 5)])
def test_what_has_no_interval_overlaps_nothing(interval):
    one, other = Cell(2, 0.0), Cell(5, 0.0, interval)
    assert not one.overlaps(other)
    assert not other.overlaps(one)


def test_takeaways_name_the_highest_and_whose_intervals_overlap_it():
    at = {"A": near(80), "B": near(79.9), "C": near(70), "D": near(71), "E": near(72)}
    (line,) = side_by_side.takeaways(made({name: {"0.9": each} for name, each in at.items()}))
    interval = side_by_side.cell(made({"A": {"0.9": at["A"]}}), "A", "0.9")
    assert line == f"90 % sparse: highest A, {interval}; only B overlaps it, 3 lie below."


@pytest.mark.parametrize(
    ("means", "words"),
    [
        ({"A": 80, "B": 79.95}, "; all other intervals overlap its."),
        ({"A": 80, "B": 70, "C": 71}, "; all other intervals lie below its."),
        ({"A": 80, "B": 79.95, "C": 79.9, "D": 70}, "; all other intervals overlap its but for D, below it."),
        ({"A": 80, "B": 79.95, "C": 79.9, "D": 70, "E": 1}, "; only B and C overlap it, 2 lie below."),
        ({"A": 80, "B": 79.95, "C": 70}, "; only B overlaps it, 1 lies below."),
    ],
)
def test_takeaways_say_the_shorter_of_both(means, words):
    (line,) = side_by_side.takeaways(made({name: {"0.9": near(mean)} for name, mean in means.items()}))
    assert line.startswith("90 % sparse: highest A, 80.0 [")
    assert line.endswith(words)


def test_takeaways_compare_those_that_need_nothing_before_where_the_highest_does():
    trainings = {
        "A": {"0.9": near(80), "0.99": near(60)},
        "B": {"0.9": near(75), "0.99": near(65)},
        "C": {"0.9": near(60)},
    }
    first, second = side_by_side.takeaways(made(trainings, before=["A"]))
    assert "; all other intervals lie below its. Without training anything else first: highest B, 75.0 [" in first
    assert "Without" not in second


def test_takeaways_are_silent_where_there_is_nothing_to_compare():
    table = made({"A": {"0": near(90), "0.9": near(80)}, "B": {"0.9": [99.0, 98.0]}})
    assert side_by_side.takeaways(table) == []


def test_trainers_with_the_same_accuracies_are_named():
    same, other = near(80), near(80, spread=0.2)
    table = made({"A": {"0.8": same, "0.9": same, "0.99": same}, "B": {"0.8": same, "0.9": same, "0.99": other}})
    assert side_by_side.alike(table) == ["A and B have the same accuracy from every seed at 80 % and 90 %."]
    assert side_by_side.alike(made({"A": {"0.9": [80, 81]}, "B": {"0.9": [80, 81]}})) == []
    assert side_by_side.alike(made({"A": {"0.9": [80, 81, 82]}, "B": {"0.9": [80, 81, 82, 83]}})) == []


def test_trainers_that_no_ledger_explains_are_named_with_the_words_that_are_missing():
    table = made({name: {"0.9": [80]} for name in ("A", "A + B", "C + D")}, papers={"C + D": ["one", "two"]})
    table.lines = {"A": ledger.Row(what="w")}
    assert side_by_side.unexplained(table) == [
        'No ledger says what A + B is: add "+ B" to [table.rows] in papers/one.toml.',
        'No ledger says what C + D is: add "C" and "+ D" to [table.rows] in papers/one.toml or papers/two.toml.',
    ]
    table.lines = {name: ledger.Row(what="w") for name in ("A", "C", "+ B", "+ D")}
    assert side_by_side.unexplained(table) == []


# ---- files -----------------------------------------------------------------------------------------------------------


def test_the_file_has_a_row_a_trainer_and_sparsity(tmp_path):
    table = made(
        {"dense": {"0": [90.5, 91]}, "RigL": {"0.9": [80, 82, 87], "0.99": [70]}},
        papers={"RigL": ["one", "two"]},
        before=["RigL"],
    )
    table.found["two"] = {key: each for key, each in table.found["two"].items() if key[1] == "0.9"}
    assert side_by_side.write(tmp_path, [table]) == ["sparse_nets.csv"]
    with (tmp_path / "sparse_nets.csv").open(newline="", encoding="utf-8") as file:
        dense, many, one = csv.DictReader(file)
    assert tuple(dense) == side_by_side.COLUMNS
    assert dense | {"mean": "90.750", "low": "", "high": "", "seeds": "2", "before": "", "papers": "one"} == dense
    half = stats.t.ppf(0.975, 2) * np.std([80, 82, 87], ddof=1) / np.sqrt(3)
    limits = {"low": f"{83 - half:.3f}", "high": f"{83 + half:.3f}"}
    assert many | limits | {"trainer": "RigL", "sparsity": "0.9", "mean": "83.000", "papers": "one;two"} == many
    assert one | {"sparsity": "0.99", "seeds": "1", "papers": "one", "before": "more", "protocol": "P"} == one


def test_each_protocol_has_a_file_and_what_is_left_of_one_that_is_gone_is_removed(tmp_path):
    tables = [made({"A": {"0.9": [80]}}, protocol=protocol) for protocol in ("P", "Q")]
    (tmp_path / "sparse_nets_of_others.csv").write_text("")
    assert side_by_side.write(tmp_path, tables) == ["sparse_nets.csv", "sparse_nets_2.csv"]
    assert (tmp_path / "sparse_nets_2.csv").read_text().splitlines()[1] == "A,0.9,1,80.000,,,one,,Q"
    assert side_by_side.write(tmp_path, tables[:1]) == ["sparse_nets.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sparse_nets.csv", "sparse_nets_of_others.csv"]


def test_where_nothing_was_run_nothing_is_written(tmp_path):
    table = Joined("sparse nets")
    assert side_by_side.write(tmp_path, [table]) == [""]
    assert list(tmp_path.iterdir()) == []
    assert side_by_side.rows(table) == side_by_side.takeaways(table) == side_by_side.alike(table) == []


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        side_by_side.write(tmp_path / "file", [made({"A": {"0.9": [80]}})])
