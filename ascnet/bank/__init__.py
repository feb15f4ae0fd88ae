"""The memory bank: its rows, its search, and its placement over processes."""
