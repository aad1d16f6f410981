"""A trained model at work: classify files, export to other runtimes."""
