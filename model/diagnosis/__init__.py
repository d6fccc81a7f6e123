"""What is wrong with a task, from the features of its clips alone: no forward pass."""
