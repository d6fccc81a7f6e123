"""Which actions a long video shows, and when."""
