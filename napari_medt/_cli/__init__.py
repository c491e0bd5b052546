"""What the commands share: the console, and the work on many files."""
