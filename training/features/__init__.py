"""What the frozen blocks make of clips, computed once and kept."""
