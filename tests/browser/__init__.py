"""What is seen and clicked in JupyterLab, in a real browser."""
