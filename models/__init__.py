"""Pure Flax Linen models: towers, CLIP, the zoo of named shapes, pretrained weights."""
