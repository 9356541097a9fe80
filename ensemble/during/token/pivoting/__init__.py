"""How members meet in the tokens, or the anchors, of one of them, through heads that are resident at them."""
