"""Tables of several papers put together: brute force over the files, and everything that must not be joined."""

import pytest

from papertwin import joined, ledger, paths
from papertwin.errors import LedgerError

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


def book(toy_ledger, slug, names=("trainers",), year=2020, more=""):
    text = toy_ledger.replace('slug = "toy"', f'slug = "{slug}"').replace("year = 2020", f"year = {year}")
    words = 'caption = "c"\nsource = "s"\nstatus = "regenerated"\n'
    tables = "".join(
        f'[[table]]\nid = "table_{number}"\n{words}joined = "{name}"\n{more}' for number, name in enumerate(names)
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
    assert table.sparsities == ["0", "0.9", "0.99"]
    assert table.trainers == ["dense", "RigL", "RigL + SparseOpt", "SET", "SET + SparseOpt"]
    assert table.by_seed("RigL", "0.9") == {"1": 80, "2": 82, "10": 87}
    assert list(table.by_seed("RigL", "0.9")) == ["1", "2", "10"]
    assert (table.papers("SET"), table.papers("RigL"), table.papers("RigL", "0.99")) == (["one", "two"], ["one"], [])


# ---- order -----------------------------------------------------------------------------------------------------------

LINED = """[table.rows]
static = { what = "stays" }
SRigL = { what = "is structured", before = "a lot" }
"SRigL plain" = { what = "is simple" }
"""
ADDING = '[table.rows]\n"+ Opt" = { what = "adds", before = "a bit" }\nSRigL = { what = "is something else" }\n'


def test_dense_trainers_are_first_and_those_that_add_to_another_behind_it(tmp_path, books):
    save(tmp_path, "one", TWO)
    save(tmp_path, "two", ONE)
    (table,) = joined.join(tmp_path, books)
    assert table.trainers == ["dense", "SET", "SET + SparseOpt", "RigL", "RigL + SparseOpt"]


def test_trainers_stand_as_the_ledgers_list_them_the_older_paper_first(tmp_path, toy_ledger):
    newer, older = book(toy_ledger, "a", year=2024, more=ADDING), book(toy_ledger, "b", year=2023, more=LINED)
    names = ["Ask", "SRigL + Opt", "SRigL", "SRigL plain + Opt", "SRigL plain", "SRigLong", "static + Opt", "static"]
    save(tmp_path, "a", [f"{name},0.9,1,80,P" for name in names])
    save(tmp_path, "b", ["dense,0,1,90,P", "free,0,1,90,P", "free,0.5,1,80,P"])
    wanted = ["dense", "static", "static + Opt", "SRigL", "SRigL plain", "SRigL + Opt", "SRigL plain + Opt"]
    for books in ([newer, older], [older, newer]):
        (table,) = joined.join(tmp_path, books)
        assert list(table.found) == ["b", "a"]
        assert table.trainers == [*wanted, "free", "Ask", "SRigLong"]


# ---- lines -----------------------------------------------------------------------------------------------------------


def test_what_ledgers_say_of_trainers(tmp_path, toy_ledger):
    note = 'note = "Mind the gap."\n'
    books = [book(toy_ledger, "one", more=note + LINED), book(toy_ledger, "two", year=2021, more=ADDING)]
    books.append(book(toy_ledger, "three", year=2022, more='note = "Not run, not said."\n'))
    save(tmp_path, "one", ["SRigL,0.9,1,80,P", "Ask,0.9,1,80,P"])
    save(tmp_path, "two", ["SRigL + Opt,0.9,1,80,P", "static + Ask,0.9,1,80,P", "Ask + Opt,0.9,1,80,P"])
    (table,) = joined.join(tmp_path, books)
    assert {name: line.what for name, line in table.explained.items()} == {
        "static": "stays",
        "SRigL": "is structured",
        "+ Opt": "adds",
    }
    assert table.unexplained == ["static + Ask", "Ask", "Ask + Opt"]
    assert [table.before(name) for name in ("SRigL", "SRigL + Opt", "static", "Ask")] == [
        "a lot",
        "a lot; a bit",
        "",
        "",
    ]
    assert table.notes == {"one": "Mind the gap."}


def test_every_trainer_of_the_repository_is_explained_once():
    books = [ledger.load(slug) for slug in ledger.slugs()]
    tables = joined.join(paths.root() / "figures", books)
    assert [table.name for table in tables] == ["sparse trainers"]
    for table in tables:
        assert table.unexplained == []
        assert list(table.explained) == list(table.lines)
    said = [(each.joined, name) for book in books for each in book.tables for name in each.rows]
    assert len(said) == len(set(said))


@pytest.mark.parametrize("more", ['note = "n"\n', '[table.rows]\nRigL = { what = "w" }\n'])
def test_words_that_would_be_shown_nowhere_are_refused(toy_ledger, more):
    with pytest.raises(LedgerError, match="would be shown nowhere"):
        book(toy_ledger, "one", ("",), more=more)


# ---- what must not be joined -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "differs"), [("60", False), ("60.0000005", False), ("60.0001", True), ("60.01", True), ("59", True)]
)
def test_one_training_must_have_one_result(tmp_path, books, value, differs):
    save(tmp_path, "one", ONE)
    save(tmp_path, "two", [f"SET,0.99,1,{value},P"])
    (table,) = joined.join(tmp_path, books)
    assert [line.partition(":")[0] for line in table.problems] == ["SET at sparsity 0.99, seed 1"] * differs
    assert all("60.00 in one" in line and f"{float(value):.2f} in two" in line for line in table.problems)
    assert bool(table.contested) == differs


def test_protocols_are_never_mixed(tmp_path, books):
    save(tmp_path, "one", ONE)
    save(tmp_path, "two", [*(row[:-1] + "Q" for row in TWO), TWO[0]])
    tables = joined.join(tmp_path, books)
    assert [(each.protocol, list(each.found)) for each in tables] == [("P", ["one", "two"]), ("Q", ["two"])]
    assert len(tables[0].found["two"]) == 1


def test_names_are_never_mixed(tmp_path, toy_ledger):
    save(tmp_path, "one", ONE)
    save(tmp_path, "one", TWO, number=1)
    tables = joined.join(tmp_path, [book(toy_ledger, "one", ("dense nets", "sparse nets"))])
    assert [(each.name, len(each.found["one"])) for each in tables] == [("dense nets", 6), ("sparse nets", 4)]


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
    assert (table.found, table.trainers, table.explained) == ({}, [], {})
    assert table.problems == ["one has not been run: `papertwin run one` adds its rows."]


def test_a_training_of_three_papers_is_one_training(tmp_path, toy_ledger):
    books = [book(toy_ledger, name) for name in ("one", "two", "three")]
    for each in books:
        save(tmp_path, each.slug, ["SET,0.99,1,60,P"])
    (table,) = joined.join(tmp_path, books)
    assert table.shared == 1


@pytest.mark.parametrize("names", [("../up",), ("Sparse",), ("a2",), ("a ",), ("twice", "twice")])
def test_names_that_cannot_be_files_and_two_tables_of_one_name_are_refused(toy_ledger, names):
    with pytest.raises(LedgerError, match=r"pattern|more than one table is joined as twice"):
        book(toy_ledger, "one", names)


def test_columns_are_those_that_papers_save():
    from papertwin.sparse import protocol

    assert list(joined.COLUMNS) == protocol.COLUMNS
