"""From scores to the items that are shown."""
