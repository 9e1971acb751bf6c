"""A grid of runs over k, cell and source: planned, run, and summed up."""
