"""Offline: pretraining, synthetic data, released checkpoints."""
