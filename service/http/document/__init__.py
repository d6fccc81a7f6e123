"""What the OpenAPI document shows beside schemas."""
