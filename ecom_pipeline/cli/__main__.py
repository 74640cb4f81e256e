"""`python -m ecom_pipeline.cli`."""

from ecom_pipeline.cli import main

main()
