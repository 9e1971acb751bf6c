"""Runs seen from outside: read back from their folders, listed and drawn."""
