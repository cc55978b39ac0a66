"""Networks: encoders q(z | x) and decoders of p(x | z), in pairs; a pair of one's own is named by its class path."""

from models.networks.base import Decoder, Encoder, NetworkPair, Start

__all__ = ["Decoder", "Encoder", "NetworkPair", "Start"]
