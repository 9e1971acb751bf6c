"""The run folder: checkpoints, metrics and small files, whole or not there; one run at a time."""
