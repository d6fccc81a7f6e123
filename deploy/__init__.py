"""Running kshot: the demo and the compose parts."""
