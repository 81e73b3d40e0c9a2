"""Asset checks, one module a stage. They read what is stored and say what they measured."""
