"""Combiners: the answers of several models in, one answer out. One file each, a function with one decorator."""
