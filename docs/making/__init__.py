"""What the documentation's site makes by itself: the pages of the reference and of the commands, and its links."""
