"""
Recommendations and similar items from a checkpoint, and what is shown beside them: histories, profiles, reasons.

Nothing is trained or measured here, and nothing is known of Dagster or of a server.
"""
