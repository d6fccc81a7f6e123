"""The command line `kshot`."""
