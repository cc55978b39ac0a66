"""Networks: encoders q(z | x) and decoders of p(x | z), in pairs; a pair of one's own is named by its class path."""

from models.networks.base import Decoder, Encoder, NetworkPair, Start

NAMES = {
    "mlp": "models.networks.mlp_pair:MLPPair",
    "convolutional": "models.networks.convolutional:ConvolutionalPair",
    "recurrent": "models.networks.recurrent:RecurrentPair",
}
"""The package's pairs: name on the command line, and where the class is.

The networks of a kind of content are, by default, the last pair here that reads it.
"""

__all__ = ["NAMES", "Decoder", "Encoder", "NetworkPair", "Start"]
