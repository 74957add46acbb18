"""Weights in and out: what lies where, in which layout, under which names."""
