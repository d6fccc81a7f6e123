"""Diagnosis of registered tasks."""
