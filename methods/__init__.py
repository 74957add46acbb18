"""One short file per paper: which losses, which weights, which teacher."""
