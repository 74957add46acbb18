"""Sources, tokenizer, images and the Grain pipeline."""
