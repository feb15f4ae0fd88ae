"""What a run tells: metrics and where they go, the load of the machine, traces."""
