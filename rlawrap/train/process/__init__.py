"""The processes of a run: how they meet and agree, and the signals that they heed."""
