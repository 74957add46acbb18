"""Experiments of teachers that look at their student, for teach.py."""
