"""A stand-in for bcrypt that a test holds back."""

import threading


class HeldBcrypt:
    """bcrypt whose runs end when the test lets them, or after `seconds`; it counts concurrent runs."""

    def __init__(self, seconds=60):
        self.seconds = seconds
        self.may_end, self.one_runs, self.two_run = threading.Event(), threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.running = self.most = 0

    def __call__(self, password, salt):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.one_runs.set()
            if self.running == 2:
                self.two_run.set()
        self.may_end.wait(self.seconds)
        with self.lock:
            self.running -= 1
        return True
