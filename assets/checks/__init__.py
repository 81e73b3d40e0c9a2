"""Asset checks, one module a stage."""
