"""What `bench ablation` measures of an encoder, and its table."""
