"""The window: PySide6 over `engine.api`. No torch in this process, ever."""
