"""What a student can be asked: one file a task."""
