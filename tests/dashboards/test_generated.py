"""The boards that are kept in the repository, and those for Kubernetes."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from dashboards.files import BOARDS
from dashboards.schema_27 import translated
from monitor.cli.main import streamgauge

GENERATED = Path(__file__).parents[2] / "dashboards" / "generated"

APPLIED_BYTES = 256 * 1024
"""kubectl apply keeps a copy of what was applied in an annotation, which holds that much."""


def rendered(target, folder, *more):
    result = CliRunner().invoke(streamgauge, ["dashboards", "render", "--target", target, "--out", str(folder), *more])
    assert 0 == result.exit_code, result.output
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_generated_boards_are_current(tmp_path):
    """What is kept in the repository is what the command writes today.

    Else: streamgauge dashboards render --target grafana --out dashboards/generated/grafana \
        --boards-path /var/lib/grafana/dashboards/streamgauge
    """
    kept = GENERATED / "grafana"
    texts = {str(path.relative_to(kept)): path.read_text() for path in kept.rglob("*") if path.is_file()}

    assert rendered("grafana", tmp_path, "--boards-path", "/var/lib/grafana/dashboards/streamgauge") == texts


def test_config_maps_hold_the_same_boards(tmp_path):
    """One ConfigMap a board with the label that Grafana's sidecar looks for, and the board's own JSON in it."""
    texts = rendered("configmaps", tmp_path)
    maps = {name: yaml.safe_load(text) for name, text in texts.items()}

    assert {f"configmaps/{board.uid}.yaml" for board in BOARDS} == set(maps)
    assert max(len(text.encode()) for text in texts.values()) < APPLIED_BYTES
    for board in BOARDS:
        each = maps[f"configmaps/{board.uid}.yaml"]

        assert ("v1", "ConfigMap", board.uid) == (each["apiVersion"], each["kind"], each["metadata"]["name"])
        assert "1" == each["metadata"]["labels"]["grafana_dashboard"]
        assert {f"{board.uid}.json": board.text()} == each["data"]


@pytest.mark.parametrize("board", [pytest.param(board, id=board.uid) for board in BOARDS])
def test_an_old_grafana_has_its_own_spelling(board, tmp_path):
    """The target grafana-7 writes schema version 27 and the same files for provisioning."""
    texts = rendered("grafana-7", tmp_path)

    assert translated(board.json()) == json.loads(texts[f"dashboards/{board.uid}.json"])
    assert "provisioning/dashboards/streamgauge.yaml" in texts
