"""What a model sees: attention maps, relevance of tokens, and pictures of both."""
