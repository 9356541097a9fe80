"""Members that agree on every token: one file for each method; ``lockstep`` is the loop that most of them share."""
