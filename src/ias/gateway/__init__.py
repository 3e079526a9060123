"""The data plane: OpenAI's inference API, governed and metered, at the cost of a proxy. README.md says where to start."""
