"""Studies: runs and comparisons that can be repeated, their tables, and what is looked at beyond accuracy."""
