"""What the pretraining loop is made of: the step, its state, checkpoints in time, interruptions."""
