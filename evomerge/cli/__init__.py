"""The command line: one module for each family of commands, nothing but words in and words out."""
