"""The experiments whose figures stand in docs/results.md. Timings are measured in `benchmarks/`."""
