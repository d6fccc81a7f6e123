"""The header Idempotency-Key, and answers that are given again."""
