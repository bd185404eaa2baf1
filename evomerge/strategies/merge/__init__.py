"""Merge methods: tensors in, tensor out, one file a family. A new one is one function with the decorator `method`."""
