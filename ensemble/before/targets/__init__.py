"""What heads are fitted to: labels, kinds of queries, battles, matches and rewards, made of an outcome table."""
