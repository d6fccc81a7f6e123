"""How a pass is shared between cores, and what it makes of its parts."""
