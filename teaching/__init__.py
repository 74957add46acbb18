"""Teachers that look at their student: what they plan, make and measure, one file a paper."""
