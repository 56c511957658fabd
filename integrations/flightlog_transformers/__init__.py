"""The room for the Hugging Face Trainer: a callback: its hooks in, the core's recorder out. Nothing is exported yet."""
