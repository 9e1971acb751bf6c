"""The network of a run, its optimiser, its average, and it over many processes."""
