"""What is done with models beside calling them: looking, measuring, converting, following."""
