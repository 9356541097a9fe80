"""Methods that choose one of several whole answers; one file each."""
