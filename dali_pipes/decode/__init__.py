"""Which bytes of a video to read, and who decodes them."""
