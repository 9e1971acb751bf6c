"""Time and memory of a hidden state, beside its arithmetic: `python -m benchmarks.speed`."""
