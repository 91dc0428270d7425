"""MLflow as we use it: runs that say what they were, a registry, and the gate before it."""
