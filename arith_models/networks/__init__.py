"""Networks, one a module: arrangements of units for a task, with the papers' settings, and whole models on symbols."""
