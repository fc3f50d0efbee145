"""The engine: trains many lanes in one process. Imports torch and the contracts of models and tasks."""
