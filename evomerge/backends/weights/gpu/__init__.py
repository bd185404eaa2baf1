"""Merge methods as Triton kernels for tensors on one device: each input is read once, the output written once.

A kernel computes what its method's formula says, in float32, element by element, as the kernels for processors beside
this folder do; the formula stays the definition, and serves the methods without a kernel. `merging` is the way in;
`numbers` has the storage dtypes, `combining` what becomes of the entries at one place; then comes one file for each
family, and `batches` runs many tensors at once. Importing them imports Triton, which decides then whether kernels are
compiled or, with TRITON_INTERPRET=1, interpreted.
"""
