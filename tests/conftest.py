"""What all tests share: fixtures that start real Jupyter servers."""

pytest_plugins = ["pytest_jupyter.jupyter_server"]
