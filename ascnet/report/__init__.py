"""`ascnet report`: one's own scores beside the published ones, and a run as a page to look at."""
