"""What to try, and what came of it: sweep files, search, scheduling, records and reports."""
