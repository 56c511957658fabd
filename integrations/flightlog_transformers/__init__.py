"""The rooms for the Hugging Face Trainer and for accelerate: the frameworks' hooks in, the core's recorder out.

    Trainer(model, args, callbacks=[FlightlogCallback(project="digits")])
    Accelerator(log_with="flightlog")

Importing the package makes the name "flightlog" known to those of the two that are installed: to `report_to=` of
TrainingArguments and to `log_with=` of Accelerator.
"""

from importlib.util import find_spec

__all__: list[str] = []

if find_spec("transformers") is not None:
    from .callback import FlightlogCallback
    from .register import register_callback

    register_callback(FlightlogCallback)
    __all__ += ["FlightlogCallback"]

if find_spec("accelerate") is not None:
    from .register import register_tracker
    from .tracker import FlightlogTracker, attach

    register_tracker(FlightlogTracker)
    __all__ += ["FlightlogTracker", "attach"]
