"""Pure functions of embeddings; no Flax, no state."""
