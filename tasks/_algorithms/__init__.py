"""Parts of the task on algorithms: operations on symbols, their examples, their oracles and their errors; not a task itself."""
