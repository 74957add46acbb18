"""What a step takes on chips that need not be here: train.py --plan."""
