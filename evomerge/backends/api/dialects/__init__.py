"""How endpoints are spoken to: from a request to JSON, and from JSON to an answer, one dialect a file. Pure."""
