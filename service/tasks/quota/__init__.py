"""What requests are charged of the quotas of their tenant."""
