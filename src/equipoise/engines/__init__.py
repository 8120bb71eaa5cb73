"""What carries traffic, behind one interface."""
