"""Models behind an API: endpoints over HTTP, asked in the dialect of OpenAI's chat completions."""
