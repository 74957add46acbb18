"""One file per benchmark: encode once, score, aggregate."""
