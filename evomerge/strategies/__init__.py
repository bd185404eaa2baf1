"""The three kinds of strategy that people extend, one folder each.

`search` proposes points of a space and learns from their fitness, `merge` combines tensors, `ensemble` combines
answers. Nothing here touches a disk, a clock, a network or global random state.
"""
