"""Each stage of loading alone, and all of them together: the ladder of `bench stages`."""
