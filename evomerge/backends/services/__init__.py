"""Services that hold a repository of adapters and merge them on request: LoRAX, llama.cpp's server, vLLM."""
