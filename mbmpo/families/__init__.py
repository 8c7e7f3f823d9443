"""MB-MPO's task families (specification, section 7)."""

from mbmpo.families.half_cheetah import HalfCheetah

__all__ = ["HalfCheetah"]
