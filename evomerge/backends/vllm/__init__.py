"""vLLM as a backend: the engine stays, and candidates come to it as numbers or as adapters."""
