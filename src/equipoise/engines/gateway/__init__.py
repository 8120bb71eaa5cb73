"""The DICOM gateway: relays in a process of their own, and the supervisor's side of it."""
