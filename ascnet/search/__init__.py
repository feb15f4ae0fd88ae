"""Features of a whole corpus on disk, and what lies near a video in them: `ascnet embed` and `ascnet search`."""
