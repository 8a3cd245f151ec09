"""Run by `python3 -m unittest` in the folder above. What the library logs isn't shown."""

import logging

logging.disable(logging.CRITICAL)
