"""What can be asked of the service: each operation once, for both clients."""
