"""That docs/gpu.md is what its measurements say."""

import json

from benchmarks.gpu_page import DOCS, rendered


def test_the_page_is_rendered_from_the_measurements() -> None:
    assert (DOCS / "gpu.md").read_text() == rendered(json.loads((DOCS / "gpu.json").read_text()))
