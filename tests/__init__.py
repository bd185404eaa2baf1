"""The tests, folder by folder as in evomerge/; a package so that `tests.support` means this one."""
