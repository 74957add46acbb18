"""Mesh, state, step, teacher, optimizer, checkpoints, logging."""
