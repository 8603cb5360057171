"""Whether this process has been told to stop. The worker sets it on SIGTERM; `/readyz` answers 503 from then on."""

import threading

shutting_down = threading.Event()  # process-wide because the signal is; set once, never cleared
