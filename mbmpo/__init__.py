"""MB-MPO: meta-policy optimisation over an ensemble of learned models (Clavera et al., CoRL 2018), and its competitors."""
