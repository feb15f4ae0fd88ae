"""The training step with data on the device, and with the loader: what `bench step` sets side by side."""
