"""Where recipes are held and asked: `local` (transformers in this process), and `weights`, the tensors behind them.

`protocol` says what a backend is, `settings` what a job may say about each. Importing this loads no engine.
"""
