"""How a pass is shared between cores, what it makes of its parts, and supports as bytes."""
