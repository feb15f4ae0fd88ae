"""What all benchmarks share: plans, rounds, statistics, checks, results."""
