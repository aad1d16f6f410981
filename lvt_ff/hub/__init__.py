"""Models by name: folders on disk and repositories on the Hub, their cards, push and pull."""
