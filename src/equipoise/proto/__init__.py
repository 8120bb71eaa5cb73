"""Codecs without input or output: bytes in, values out, and back."""
