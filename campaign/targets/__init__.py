"""What is fuzzed with coverage: a function of bytes for each target, run by campaign/fuzzed.py."""
