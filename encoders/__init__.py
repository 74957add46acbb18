"""What benchmarks are handed: models as functions of files and texts, and stand-ins for them."""
