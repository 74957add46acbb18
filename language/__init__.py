"""Language models that can be called: one protocol, a file for each backend, a cache on disk."""
