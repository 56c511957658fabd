"""The room for Keras: a fit callback that records into flightlog, on the torch, jax and tensorflow backends.

    model.fit(x, y, callbacks=[FlightlogCallback(project="digits")])

Keras 3 is imported here, no backend is. What is recorded and how a run goes on: docs/keras.md.
"""

from .callback import FlightlogCallback

__all__ = ["FlightlogCallback"]
