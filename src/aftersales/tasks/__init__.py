"""Classification tasks: their labels, in Chinese and English, and where their splits are."""

from aftersales.tasks.task import Group, Label, Task, find_task, known_tasks, load_task

__all__ = ["Group", "Label", "Task", "find_task", "known_tasks", "load_task"]
