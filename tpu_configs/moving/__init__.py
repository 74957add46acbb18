"""Experiments on the embedded clips of moving things."""
