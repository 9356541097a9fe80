"""Which outcomes to ask for next: recommending members and judging their answers, one for the sake of the other."""
