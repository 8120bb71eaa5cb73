"""Equipoise: a load balancer for medical imaging."""

__version__ = "0.6.0"
