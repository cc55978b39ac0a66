"""What is believed: generative processes as Pyro programs, likelihoods, networks, priors."""

import pyro_cvae  # noqa: F401  # first of all, since it takes run folders off the path
