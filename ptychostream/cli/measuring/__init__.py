"""Commands that measure this program, or reproduce what was published."""
