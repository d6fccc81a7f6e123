"""The core: bytes given to it in, scores out; knows no HTTP, Redis, OpenAI or environment."""
