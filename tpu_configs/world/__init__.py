"""Experiments on the embedded world of rendered scenes."""
