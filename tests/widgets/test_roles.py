from __future__ import annotations

import pytest

from napari_lfm.widgets.roles import assign_roles, guess_role


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("Lightfield_GUVExperim1.tif", "lightfield"),
        ("Radiometry_GUVExperim1.tif", "white"),
        ("DarkFrame_GUVExperim1.tif", "dark"),
        ("/data/2021/white-frame.ome.tif", "white"),
        ("flat field 3.tif", "white"),
        ("WHITE.tif", "white"),
        ("background.tif", "dark"),
        ("mito.tif", None),
        # words inside words tell nothing
        ("whitefly_larva.tif", None),
        ("darkness.tif", None),
    ],
)
def test_names(name: str, role: str | None) -> None:
    assert guess_role(name) == role


def test_record_beats_name() -> None:
    assert guess_role("white.tif", {"role": "dark"}) == "dark"


def test_files_opened_together() -> None:
    assert assign_roles(["a.tif", "white.tif", "dark.tif"]) == {
        "white.tif": "white",
        "dark.tif": "dark",
        "a.tif": "lightfield",
    }
    # a second white frame has no role of its own, and is not mistaken for the light field
    assert assign_roles(["lf.tif", "white1.tif", "white2.tif"]) == {
        "lf.tif": "lightfield",
        "white1.tif": "white",
    }
    assert assign_roles(["mystery.tif"], taken=("lightfield",)) == {}
