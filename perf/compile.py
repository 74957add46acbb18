"""Where the command went."""

raise SystemExit("perf.compile moved: python train.py --config=... --plan=TOPOLOGY")
