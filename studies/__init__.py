"""The evidence of docs/results*.md: variants, seeds, intervals."""
