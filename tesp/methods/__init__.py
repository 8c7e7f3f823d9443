"""The five methods: what is adapted, what has learned rates, and where the policy's context comes from."""

from tesp.methods.base import EncoderInput, MetaParameters, Method
from tesp.methods.maesn import MAESN
from tesp.methods.maml import MAML
from tesp.methods.metasgd import MetaSGD
from tesp.methods.tesp import TESP, TESPAdaptivePolicy

__all__ = ["MAESN", "MAML", "TESP", "EncoderInput", "MetaParameters", "MetaSGD", "Method", "TESPAdaptivePolicy"]
