"""The room for Keras: a fit callback: the framework's hooks in, the core's recorder out. Nothing is exported yet."""
