"""`recmodels models`: which models there are, and what they need."""

from pipelines.cli.rows import AsJson, say, show_rows
from recmodels.calibration.config import calibrated
from recmodels.models.registry import DEFAULT_MODELS, MODELS

_NEEDS = {
    "item_text_embeddings": "item texts",
    "item_image_embeddings": "images (if any)",
    "user_text_embeddings": "user profiles",
    "augmented_interactions": "transport plan",
}
"""What has to be known or made for a table, beyond interactions; neighbour tables follow from these."""


def models(as_json: AsJson = False) -> None:
    """List the models, what they read, and the names of their calibrated forms."""
    rows = [
        {
            "model": spec.name,
            "title": spec.title,
            "reference": spec.reference,
            "needs": ["interactions", *(text for table, text in _NEEDS.items() if table in spec.inputs)],
            "inputs": sorted(spec.inputs),
            "calibrated": calibrated(spec.name),
        }
        for spec in MODELS.values()
    ]
    if as_json:
        show_rows(rows, as_json=True)
        return
    shown = ("model", "title", "reference", "needs")
    show_rows([{name: row[name] for name in shown} for row in rows], as_json=False)
    say("")
    say(f"A run trains {', '.join(DEFAULT_MODELS)} where --models names no others.")
    say("calibrated/<model> is a model whose best items are put into a new order: docs/calibration.md.")
