"""Images of digits: the data sets and their split into parts. Not a task itself."""
