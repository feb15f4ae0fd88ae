"""To look at videos, clips and the machine: `dali-pipes inspect`, `preview` and `doctor`, and used by these alone."""
