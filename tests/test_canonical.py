"""Executed notebooks in one form: the same run gives the same bytes, and nothing that nbval compares is lost."""

import copy

import nbformat
import pytest
from nbformat import v4

from papertwin.canonical import INJECTED, canonicalise, read, update_source, write
from papertwin.errors import RunError


def stream(text, name="stdout"):
    return v4.new_output("stream", name=name, text=text)


def executed(when="2026-01-01", chunks=("a\n", "b\n"), python="3.11.9"):
    first = v4.new_markdown_cell("# Toy", id="title")
    parameters = v4.new_code_cell("n: int = 3  # n", id="n", execution_count=1, metadata={"tags": ["parameters"]})
    injected = v4.new_code_cell("n = 5", execution_count=2, metadata={"tags": [INJECTED]})
    work = v4.new_code_cell("print(n)", id="work", execution_count=3, outputs=[stream(chunk) for chunk in chunks])
    shown = v4.new_output("display_data", {"text/plain": "F", "application/vnd.jupyter.widget-view+json": {"m": when}})
    work.outputs.append(shown)
    for cell in (first, parameters, injected, work):
        cell.metadata["papermill"] = {"start_time": when}
        cell.metadata["execution"] = {"iopub.status.busy": when}
    metadata = {
        "kernelspec": {"name": "python3", "display_name": f"Python {python}"},
        "language_info": {"name": "python", "version": python},
        "papermill": {"duration": when},
        "widgets": {"state": when},
    }
    return v4.new_notebook(cells=[first, parameters, injected, work], metadata=metadata)


def text(notebook):
    return nbformat.writes(canonicalise(notebook))


def test_time_chunks_python_and_random_ids_leave_no_trace():
    one = executed()
    other = executed("2027-02-03", ("a", "\nb\n"), "3.14.1")
    assert one.cells[2].id != other.cells[2].id
    assert text(one) == text(other)
    assert "202" not in text(one)
    assert "3.1" not in text(one)


def test_it_is_valid_and_stays_as_it_is():
    once = canonicalise(executed())
    nbformat.validate(once)
    assert canonicalise(copy.deepcopy(once)) == once


def test_counts_outputs_tags_and_ids_are_kept():
    done = canonicalise(executed())
    assert [cell.get("execution_count") for cell in done.cells] == [None, 1, 2, 3]
    assert done.cells[3].outputs[0].text == "a\nb\n"
    assert done.cells[3].outputs[1].data == {"text/plain": "F"}
    assert done.cells[1].metadata == {"tags": ["parameters"]}
    assert [done.cells[i].id for i in (0, 1, 3)] == ["title", "n", "work"]


def test_streams_of_different_names_are_not_joined():
    notebook = executed()
    notebook.cells[3].outputs = [stream("a"), stream("b", "stderr"), stream("c")]
    assert [o.text for o in canonicalise(notebook).cells[3].outputs] == ["a", "b", "c"]


def doubled():
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("same") for _ in range(3)])
    for cell in notebook.cells:
        cell.id = "x"
    del notebook.cells[2]["id"]
    return notebook


def test_doubled_and_missing_ids_are_made_from_the_text():
    ids = [cell.id for cell in canonicalise(doubled()).cells]
    assert len(set(ids)) == 3
    assert ids[0] == "x"
    assert [cell.id for cell in canonicalise(doubled()).cells] == ids


def test_the_injected_cell_can_be_left_out():
    assert len(canonicalise(executed(), keep_injected=False).cells) == 3


def test_the_committed_notebook_gets_the_outputs_of_its_run(tmp_path):
    source = canonicalise(executed(), keep_injected=False)
    for cell in source.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    write(source, tmp_path / "toy.ipynb")
    write(executed(), tmp_path / "executed.ipynb")
    update_source(tmp_path / "executed.ipynb", tmp_path / "toy.ipynb")
    assert read(tmp_path / "toy.ipynb") == canonicalise(executed(), keep_injected=False)


def test_an_edited_notebook_is_not_overwritten(tmp_path):
    edited = canonicalise(executed(), keep_injected=False)
    edited.cells[0].source = "# Toy, improved"
    write(edited, tmp_path / "toy.ipynb")
    before = (tmp_path / "toy.ipynb").read_bytes()
    write(executed(), tmp_path / "executed.ipynb")
    with pytest.raises(RunError, match="edited since"):
        update_source(tmp_path / "executed.ipynb", tmp_path / "toy.ipynb")
    assert (tmp_path / "toy.ipynb").read_bytes() == before


def test_an_unreadable_notebook_is_a_clear_error(tmp_path):
    (tmp_path / "broken.ipynb").write_text("{")
    for name in ("broken.ipynb", "absent.ipynb"):
        with pytest.raises(RunError, match=name):
            read(tmp_path / name)
