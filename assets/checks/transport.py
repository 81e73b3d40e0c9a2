"""Checks of the augmentation."""

import dagster as dg

from assets.checks.declare import Verdict, recorded_check


@recorded_check("augmented_interactions", "The plan's marginals were met within the tolerance.", blocking=False)
def converged_plan(records: list[dg.AssetMaterialization]) -> Verdict:
    """Look at how the solver ended."""
    found = {
        name: records[0].metadata[name].value for name in ("status", "marginal_error") if name in records[0].metadata
    }
    measured = {"status": str(found.get("status", "")), "marginal_error": found.get("marginal_error", 0.0)}
    if measured["status"] != "not converged":
        return Verdict(measured)
    return Verdict(
        measured,
        f"The marginals of the plan are off by {measured['marginal_error']}, expected no more than the tolerance of "
        "the transport settings. Raise max_iterations or epsilon there, in the catalogue.",
    )


CHECKS = [converged_plan]
