"""Trace -> Flow: the data flow of a traced network, and what its operations do to sizes."""
