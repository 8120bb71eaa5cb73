"""DICOM's upper layer and message exchange, as a balancer needs them."""
