"""Tables of several papers put together: brute force over the files, and everything that must not be joined."""

import numpy as np
import pytest
from scipy import stats

from papertwin import joined, ledger
from papertwin.errors import LedgerError, RunError

HEAD = "trainer,sparsity,seed,test accuracy,protocol"
ONE = [
    "dense,0,1,90.5,P",
    "dense,0,2,91,P",
    "RigL,0.9,1,80,P",
    "RigL,0.9,2,82,P",
    "RigL,0.9,10,87,P",
    "SET,0.99,1,60,P",
]
TWO = ["RigL + SparseOpt,0.9,1,70,P", "SET + SparseOpt,0.9,1,71.25,P", "SET,0.99,1,60,P", "SET,0.99,2,64,P"]


def book(toy_ledger, slug, names=("trainers",)):
    text = toy_ledger.replace('slug = "toy"', f'slug = "{slug}"')
    tables = "".join(
        f'[[table]]\nid = "table_{number}"\ncaption = "c"\nsource = "s"\nstatus = "regenerated"\njoined = "{name}"\n'
        for number, name in enumerate(names)
    )
    at = text.index("[[claim]]")
    return ledger.parse(text[:at] + tables + text[at:], f"{slug}.toml")


def save(root, slug, rows, number=0, head=HEAD):
    (root / slug).mkdir(exist_ok=True)
    (root / slug / f"table_{number}.csv").write_text("\n".join([head, *rows]) + "\n")


@pytest.fixture
def books(toy_ledger):
    return [book(toy_ledger, "one"), book(toy_ledger, "two")]


def test_rows_of_two_papers_stand_under_each_other(tmp_path, books):
    save(tmp_path, "one", ONE)
    save(tmp_path, "two", TWO)
    (table,) = joined.join(tmp_path, books)
    assert (table.name, table.protocol, table.problems, table.shared) == ("trainers", "P", [], 1)
    assert table.header == ["trainer", "dense", "90% sparse", "99% sparse", "from"]
    assert table.trainers == ["dense", "RigL", "RigL + SparseOpt", "SET", "SET + SparseOpt"]
    values = np.array([80.0, 82, 87])
    half = stats.t.ppf(0.975, 2) * values.std(ddof=1) / np.sqrt(3)
    wanted = f"83.0 [{83 - half:.1f}, {83 + half:.1f}]"
    assert table.rows == [
        ["dense", "90.8", "–", "–", "one"],
        ["RigL", "–", wanted, "–", "one"],
        ["RigL + SparseOpt", "–", "70.0", "–", "two"],
        ["SET", "–", "–", "62.0", "one, two"],
        ["SET + SparseOpt", "–", "71.2", "–", "two"],
    ]
    assert table.values("RigL", "0.9") == [80, 82, 87]


def test_trainers_whose_base_is_in_a_later_paper_stand_behind_it(tmp_path, books):
    save(tmp_path, "one", TWO)
    save(tmp_path, "two", ONE)
    (table,) = joined.join(tmp_path, books)
    assert table.trainers == ["RigL", "RigL + SparseOpt", "SET", "SET + SparseOpt", "dense"]


@pytest.mark.parametrize(
    ("value", "differs"), [("60", False), ("60.0000005", False), ("60.0001", True), ("60.01", True), ("59", True)]
)
def test_one_training_must_have_one_result(tmp_path, books, value, differs):
    save(tmp_path, "one", ONE)
    save(tmp_path, "two", [f"SET,0.99,1,{value},P"])
    (table,) = joined.join(tmp_path, books)
    assert [line.partition(":")[0] for line in table.problems] == ["SET at sparsity 0.99, seed 1"] * differs
    assert all("60.00 in one" in line and f"{float(value):.2f} in two" in line for line in table.problems)
    assert (table.rows[-1][:4] == ["SET", "–", "–", "disagree"]) == differs


def test_protocols_are_never_mixed(tmp_path, books):
    save(tmp_path, "one", ONE)
    save(tmp_path, "two", [*(row[:-1] + "Q" for row in TWO), TWO[0]])
    tables = joined.join(tmp_path, books)
    assert [(each.protocol, list(each.found)) for each in tables] == [("P", ["one", "two"]), ("Q", ["two"])]
    assert len(tables[0].found["two"]) == 1
    assert joined.write(tmp_path, tables) == ["trainers.csv", "trainers_2.csv"]
    text = (tmp_path / "trainers.csv").read_text().splitlines()
    assert text[0] == "trainer,dense,90% sparse,99% sparse,from,protocol"
    assert text[1] == "dense,90.8,–,–,one,P"
    assert len(text) == 1 + len(tables[0].rows)


def test_names_are_never_mixed(tmp_path, toy_ledger):
    save(tmp_path, "one", ONE)
    save(tmp_path, "one", TWO, number=1)
    tables = joined.join(tmp_path, [book(toy_ledger, "one", ("dense nets", "sparse nets"))])
    assert [(each.name, len(each.found["one"])) for each in tables] == [("dense nets", 6), ("sparse nets", 4)]
    assert joined.write(tmp_path, tables) == ["dense_nets.csv", "sparse_nets.csv"]


def test_papers_without_such_a_table_are_left_alone(tmp_path, toy_ledger):
    assert joined.join(tmp_path, [ledger.parse(toy_ledger, "toy.toml")]) == []


@pytest.mark.parametrize(
    ("rows", "head", "message"),
    [
        ([], HEAD, "it has no rows"),
        (["RigL,0.9,1,80,"], HEAD, "line 2 lacks protocol"),
        (["RigL,0.9,1,80"], HEAD.rpartition(",")[0], "line 2 lacks protocol"),
        (["RigL,much,1,80,P"], HEAD, "sparsity in line 2 is 'much', expected a number from 0 to 1"),
        ([ONE[0], "RigL,95,1,80,P"], HEAD, "sparsity in line 3 is '95'"),
        (["RigL,-0.1,1,80,P"], HEAD, "sparsity in line 2 is '-0.1'"),
        (["RigL,nan,1,80,P"], HEAD, "sparsity in line 2 is 'nan'"),
        (["RigL,0.9,x,80,P"], HEAD, "seed in line 2 is 'x'"),
        (["RigL,0.9,inf,80,P"], HEAD, "seed in line 2 is 'inf'"),
        (["RigL,0.9,1,nan,P"], HEAD, "test accuracy in line 2 is 'nan', expected a number from 0 to 100"),
        (["RigL,0.9,1,101,P"], HEAD, "test accuracy in line 2 is '101'"),
        (["RigL,0.9,1,80,P", "RigL,0.90,1,10,P"], HEAD, "line 3 has RigL at sparsity 0.9, seed 1, a second time"),
        (['RigL,0.9,1,80,"' + "x" * 140000], HEAD, "field larger than field limit"),
    ],
)
def test_a_table_that_cannot_be_read_is_told_and_the_others_stay(tmp_path, books, rows, head, message):
    save(tmp_path, "one", rows, head=head)
    save(tmp_path, "two", TWO)
    (table,) = joined.join(tmp_path, books)
    assert list(table.found) == ["two"]
    (line,) = table.problems
    assert line.startswith("one: table_0.csv cannot be joined, ")
    assert line.endswith("; `papertwin run one --force` mends it.")
    assert message in line


def test_where_nothing_was_run_there_is_nothing_but_the_problem(tmp_path, books):
    (table,) = joined.join(tmp_path, books[:1])
    assert (table.found, table.rows, table.trainers) == ({}, [], [])
    assert table.problems == ["one has not been run: `papertwin run one` adds its rows."]
    assert joined.write(tmp_path, [table]) == [""]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path, books):
    save(tmp_path, "one", ONE)
    tables = joined.join(tmp_path, books)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        joined.write(tmp_path / "file", tables)


def test_a_training_of_three_papers_is_one_training(tmp_path, toy_ledger):
    books = [book(toy_ledger, name) for name in ("one", "two", "three")]
    for each in books:
        save(tmp_path, each.slug, ["SET,0.99,1,60,P"])
    (table,) = joined.join(tmp_path, books)
    assert table.shared == 1


def test_sparsities_that_differ_have_columns_that_differ(tmp_path, books):
    save(tmp_path, "one", ["SET,0.99,1,60,P", "SET,0.994,1,50,P"])
    (table,) = joined.join(tmp_path, books[:1])
    assert table.header[1:3] == ["99% sparse", "99.4% sparse"]


def test_what_is_left_of_a_protocol_that_is_gone_is_removed(tmp_path, books):
    save(tmp_path, "one", ONE)
    save(tmp_path, "two", [row[:-1] + "Q" for row in TWO])
    (tmp_path / "trainers_of_others.csv").write_text("")
    joined.write(tmp_path, joined.join(tmp_path, books))
    assert (tmp_path / "trainers_2.csv").exists()
    joined.write(tmp_path, joined.join(tmp_path, books[:1]))
    assert not (tmp_path / "trainers_2.csv").exists()
    assert (tmp_path / "trainers_of_others.csv").exists()


@pytest.mark.parametrize("names", [("../up",), ("Sparse",), ("a2",), ("a ",), ("twice", "twice")])
def test_names_that_cannot_be_files_and_two_tables_of_one_name_are_refused(toy_ledger, names):
    with pytest.raises(LedgerError, match=r"pattern|more than one table is joined as twice"):
        book(toy_ledger, "one", names)


def test_columns_are_those_that_papers_save():
    from papertwin.sparse import protocol

    assert list(joined.COLUMNS) == protocol.COLUMNS
