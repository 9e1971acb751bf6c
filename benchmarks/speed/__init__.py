"""What a hidden state costs in time and memory, beside its arithmetic: `python -m benchmarks.speed`."""
