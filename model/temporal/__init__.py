"""What happens along time above the backbone."""
