"""``napari-lfm simulate tissue``: what makes no stack is refused in words, before anything is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Shell


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--stack-px", "0,64,64"), "0 x 64 x 64 voxels is none"),
        (("--stack-px", "16.5,64,64"), "3 whole numbers"),
        (("--stack-px", "8,32,32", "--shift-px", "0.5,0,0"), "3 whole numbers"),
        (("--stack-px", "200000,200000,200000"), "of memory are free"),
        (("--stack-px", "8,32,32", "--seed", "-1"), "seed -1 is negative"),
        (("--stack-px", "8,32,32", "--shift-px", "8,0,0"), "leaves nothing"),
    ],
)
def test_what_makes_no_stack(shell: Shell, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    done = shell("simulate", "tissue", "-o", tmp_path / "out", *words)
    assert (done.status, done.out) == (2, ""), done.err
    assert says in done.err
