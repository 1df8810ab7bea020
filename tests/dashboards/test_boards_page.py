"""The page about the boards in the manual, and its pictures."""

import re
import struct
from pathlib import Path

import pytest

from dashboards.files import BOARDS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "dashboards.md").read_text()

SMALL_BYTES = 150 * 1024


@pytest.mark.parametrize("board", [pytest.param(board, id=board.uid) for board in BOARDS])
def test_every_board_has_a_section_and_a_small_picture(board):
    """Its title as heading, its picture below, and its rows named."""
    section = PAGE.split(f"\n## {board.title}\n")[1].split("\n## ")[0]
    (picture,) = re.findall(rf"!\[{board.title}\]\((boards/\w+\.png)\)", section)
    data = (DOCS / picture).read_bytes()
    width, height = struct.unpack(">II", data[16:24])

    assert data.startswith(b"\x89PNG")
    assert len(data) < SMALL_BYTES
    assert min(width, height) > 600
    assert board.rows[0].title in section


def test_no_picture_is_left_over():
    """Each picture in the folder is shown on the page."""
    assert {path.name for path in (DOCS / "boards").iterdir()} == set(re.findall(r"\(boards/(\w+\.png)\)", PAGE))
