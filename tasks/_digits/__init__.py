"""Pictures of digits: where they come from, how they are split, and how they become sequences. Not a task itself."""
