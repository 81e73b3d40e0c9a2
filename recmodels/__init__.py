"""How everything is computed: a plain library that never imports Dagster and works from a notebook."""
