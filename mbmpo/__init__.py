"""MB-MPO (Clavera et al., CoRL 2018) and its competitors; importing registers the families with Gymnasium."""

from mbmpo import environments

environments.register()
