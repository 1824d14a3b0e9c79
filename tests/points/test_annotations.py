"""Boxes from a table, and what is refused."""

import pytest

from papertwin.errors import DataError
from papertwin.points.annotations import COLUMNS, read_boxes

HEADER = ",".join(COLUMNS)


def write(folder, *rows, header=HEADER):
    path = folder / "boxes.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_boxes_of_one_scene_in_order(tmp_path):
    path = write(tmp_path, "a,car,1,2,3,4,2,1.5,0.5", "b,pole,0,0,0,1,1,5,0", "a,cyclist,5,5,5,1,1,1,0")
    car, cyclist = read_boxes(path, scene="a")
    assert (car.label, car.centre, car.size, car.yaw) == ("car", (1, 2, 3), (4, 2, 1.5), 0.5)
    assert cyclist.label == "cyclist"
    assert len(read_boxes(path)) == 3


@pytest.mark.parametrize(
    "row", ["a,car,1,2,3,4,2,nothing,0.5", "a,car,1,2,3,4,0,1,0.5", "a,car,1,2,3,4,2,,0.5", "a,car,1,2,3,4,2,1,inf"]
)
def test_a_bad_row_is_named(tmp_path, row):
    with pytest.raises(DataError, match="line 3"):
        read_boxes(write(tmp_path, "a,car,1,2,3,4,2,1,0.5", row))


def test_other_columns_a_missing_file_and_an_unknown_scene(tmp_path):
    with pytest.raises(DataError, match="expected"):
        read_boxes(write(tmp_path, header="x,y"))
    with pytest.raises(DataError, match=r"absent\.csv"):
        read_boxes(tmp_path / "absent.csv")
    with pytest.raises(DataError, match=r"no scene 'z'; it has \['a'\]"):
        read_boxes(write(tmp_path, "a,car,1,2,3,4,2,1,0"), scene="z")
