"""How everything is computed: a plain library that works from a notebook. What Dagster needs to know stays outside."""
