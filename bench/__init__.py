"""Benchmarks of the data plane and of training, beside other tools: `python -m bench --help`."""
