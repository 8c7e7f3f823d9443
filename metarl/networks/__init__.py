"""Networks as pure functions of explicit weights, with Keras layers owning names, shapes and initialisers."""
