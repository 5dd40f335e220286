"""One file per thing a user can run: its parameters, its checks, its run()."""
