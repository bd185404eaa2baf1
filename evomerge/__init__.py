"""evomerge searches, without gradients, for the best way to combine language models that already exist."""
