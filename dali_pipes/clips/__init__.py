"""Which frames: playback speed, clip requests and the sampler. Pure numpy: no I/O, no torch, no DALI."""
