"""Parts of the task on algorithms: operations on symbols, their examples and their oracles; not a task itself."""
