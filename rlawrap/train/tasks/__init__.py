"""What a run learns: one class for each task, behind one protocol."""
