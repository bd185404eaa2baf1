"""The sections of the generated pages, a file for each family of them."""
