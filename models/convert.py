"""Where the command went."""

raise SystemExit("models.convert moved: python -m pretrained.convert, with the same arguments")
