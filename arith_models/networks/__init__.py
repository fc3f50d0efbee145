"""Arrangements of units that fit a task, with the papers' settings for each."""
