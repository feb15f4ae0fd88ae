"""Searches of the memory bank: ours and its peers."""
