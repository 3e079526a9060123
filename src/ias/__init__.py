"""IAS, Inference-as-a-Service: your own models as a metered, governed, OpenAI-compatible service."""

__version__ = "0.1.0"
