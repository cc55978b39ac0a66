"""How good a fit is on what was held out: of rankings and of ratings, beside what a user would pick instead."""
