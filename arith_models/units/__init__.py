"""Layers with inputs and outputs. A unit knows nothing of networks."""
