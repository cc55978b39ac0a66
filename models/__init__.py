"""What is believed: generative processes as Pyro programs, likelihoods, networks, priors."""
