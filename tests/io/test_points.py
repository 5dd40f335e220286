from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from napari_lfm.core.problems import RequestError
from napari_lfm.io.points import is_points_file, read_points, sidecar, write_points
from napari_lfm.io.provenance import read_provenance

if TYPE_CHECKING:
    from pathlib import Path

TABLE = pd.DataFrame(
    {
        "label": ["soma", "NA", "dend, rite", 'quo"te'],
        "x_um": [0.1, 1 / 3, 1e-17, 123456.789012345],
        "confidence": [1.0, 0.5, np.nan, 0.25],
        "frame": [0, 1, 2, 2**40],
        "y_um": [1.0, 2.0, 3.0, 4.0],
        "good": [True, False, True, True],
        "z_um": [-7.5, 0.0, 7.5, 2.2],
    }
)


def test_place_and_confidence_come_first_and_everything_reads_back_equal(tmp_path: Path) -> None:
    path = write_points(tmp_path / "p.csv", TABLE, {"method": "localize", "note": "µm"})
    header = path.read_text(encoding="utf-8").splitlines()[0]
    assert header == "z_um,y_um,x_um,confidence,label,frame,good"
    found = read_points(path)
    pd.testing.assert_frame_equal(found[list(TABLE.columns)], TABLE, check_exact=True, check_dtype=False)
    assert found["frame"].dtype.kind == "i"
    assert found["good"].dtype.kind == "b"
    assert found.attrs["provenance"] == {"method": "localize", "note": "µm"}
    assert found.attrs["source"] == str(path)


def test_provenance_is_beside_it(tmp_path: Path) -> None:
    path = write_points(tmp_path / "p.csv", TABLE, {"method": "localize"})
    assert sidecar(path) == tmp_path / "p.csv.json"
    record = json.loads(sidecar(path).read_text())
    assert record["points"] == 4
    assert read_provenance(path) == read_provenance(sidecar(path)) == {"method": "localize"}
    # a table without provenance must not inherit its predecessor's
    write_points(path, TABLE)
    assert not sidecar(path).exists()
    with pytest.raises(RequestError, match="does not say how it was made"):
        read_provenance(path)


def test_provenance_of_the_table_itself(tmp_path: Path) -> None:
    table = TABLE.copy()
    table.attrs["provenance"] = {"method": "localize"}
    assert read_points(write_points(tmp_path / "p.csv", table)).attrs["provenance"] == {"method": "localize"}


def test_no_points_at_all(tmp_path: Path) -> None:
    found = read_points(write_points(tmp_path / "p.csv", TABLE.iloc[:0]))
    assert len(found) == 0
    assert all(found[c].dtype == float for c in ("z_um", "y_um", "x_um", "confidence"))


def test_missing_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no column z_um, confidence"):
        write_points(tmp_path / "p.csv", TABLE.drop(columns=["z_um", "confidence"]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ["a,b,c\n1,2,3\n", "", "y_um,x_um,z_um,confidence\n1,2,3,4\n", "z_um;y_um;x_um;confidence\n"]
)
def test_other_tables_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.csv"
    path.write_text(text)
    assert not is_points_file(path)
    with pytest.raises(RequestError, match=r"is not a table of points|is empty"):
        read_points(path)


def test_broken_rows_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("z_um,y_um,x_um,confidence\n1,2,three,4\n")
    with pytest.raises(RequestError, match=r"row of p.csv cannot be read .*three"):
        read_points(path)
    path.write_text("z_um,y_um,x_um,confidence\n1,2,3,4\n1,2,3,4,5\n")
    with pytest.raises(RequestError, match="row 2 has 5 cells, not 4"):
        read_points(path)
    with pytest.raises(RequestError, match="There is no file"):
        read_points(tmp_path / "q.csv")


def test_spreadsheet_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(b"\xef\xbb\xbfz_um,y_um,x_um,confidence\r\n1,2,3,0.5\r\n")
    assert read_points(path)["z_um"].tolist() == [1.0]
