"""Foreign forms of state dicts, one file a family."""
