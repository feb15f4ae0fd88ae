"""Finding settings by successive halving."""
