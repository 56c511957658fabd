"""The room for Lightning: a Logger: the framework's hooks in, the core's recorder out. Nothing is exported yet."""
