"""A distributed hyperparameter-sweep system for models that learn arithmetic and algorithms."""
