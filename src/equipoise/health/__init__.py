"""Health checks: what is asked, how often, and what follows from the answers."""
