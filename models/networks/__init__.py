"""Networks: encoders q(z | x) and decoders of p(x | z), in pairs."""

from models.networks.base import Decoder, Encoder

__all__ = ["Decoder", "Encoder"]
