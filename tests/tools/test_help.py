import pathlib

import processes
import pytest

# These are for MediaPipe's own environment.
ELSEWHERE = ("mediapipe_classify", "mediapipe_detect", "mediapipe_embed", "mediapipe_segment")
TOOLS = sorted((pathlib.Path(__file__).parents[2] / "tools").glob("*.py"))


@pytest.mark.parametrize(
    "path", [p for p in TOOLS if p.stem not in ELSEWHERE], ids=lambda p: p.stem
)
def test_tool_tells_how_it_is_used(path):
    result = processes.run(path, "--help")
    assert "Error" not in result.stderr
    assert f"python tools/{path.name}" in result.stdout
