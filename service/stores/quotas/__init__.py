"""What tenants may use and have used: kept with the tasks, so that every replica counts alike."""
