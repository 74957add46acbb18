"""The networks, pure Flax Linen: towers, CLIP, video, and the named shapes."""
