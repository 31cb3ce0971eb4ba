"""Jobs, the threads that run them, and how those meet."""
