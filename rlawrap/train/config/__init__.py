"""What decides how a run comes out, as plain data that is checked: configurations and recipes."""
