from tests.catalogue import catalogue

__all__ = ["catalogue"]
