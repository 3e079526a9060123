"""A vLLM-shaped replica that needs no GPU, for development, tests and routing experiments. README.md says what it models."""
