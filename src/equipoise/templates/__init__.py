"""Site templates: one YAML file each, found and not listed."""
