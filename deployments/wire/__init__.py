"""What is said in sessions, over TCP: ``line`` is the driver's end, ``server`` the replica's. Knows no engine."""
