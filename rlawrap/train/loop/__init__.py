"""Training and judging: one step, one epoch, a whole run."""
