"""What happened and how things stand: events, journal, snapshot."""
