"""One ml_collections config per experiment; base.py names every key."""
