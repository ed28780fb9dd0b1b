"""Search and benchmark files: what they may name."""

import pytest

from curricle.config.search import LatencyOutput


@pytest.mark.parametrize(
    "name", ["../x.json", "/x.json", "a\\b.json", "checkpoint/config.json", "run.json", ".json", "x.txt", ""]
)
def test_the_file_of_the_latency_is_a_plain_name_beside_the_model(name):
    with pytest.raises(ValueError, match="filename must be a plain name"):
        LatencyOutput(filename=name)
    assert LatencyOutput().filename == "benchmark.json"
