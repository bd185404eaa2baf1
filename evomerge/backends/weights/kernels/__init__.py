"""Merge methods as compiled loops over mapped tensors: each input is read once, and the result written once.

A kernel computes what its method's formula says, in float32, element by element; the formula stays the definition, and
a method without a kernel works through it. `jit` has the compiler's settings, `numbers` the storage dtypes, `tuples`
what makes one loop serve any number of models; then comes one file for each family, and `work` runs them in threads.
"""
