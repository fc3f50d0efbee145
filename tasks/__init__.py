"""What is learned: one file a task. A file's existence is its registration. Nothing here imports anything of ours."""
