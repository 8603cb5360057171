"""Every kind of event: what it is called, what it is about, who did it and what it says, as all who hear of it get it."""

import pytest

from backend.services.webhooks import payload
from backend.settings import Networks
from tests.conftest import PASSWORD
from tests.mailbox import Mailbox
from tests.processes.gunicorn_server import wait_until
from tests.webhook_receiver import receiving
