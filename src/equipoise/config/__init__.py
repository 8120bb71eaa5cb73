"""The configuration: models, loading, and errors that a person can act on."""
