"""Support features, and class text, to the classes of a task."""
