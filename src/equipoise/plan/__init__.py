"""What the configuration means: inputs, model, compile, diff, guard.  Pure."""
