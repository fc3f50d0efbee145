"""Tasks, one module each. The contract is in `base`; a module is registered by existing.

The package imports torch and numpy, and nothing else of this project.
"""
