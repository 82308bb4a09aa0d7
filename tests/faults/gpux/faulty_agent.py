"""The agent, with a fault: at the step named on the command line it kills itself, once per spool."""

from __future__ import annotations

import os
import signal
import sys

from gpux.agent.__main__ import Supervisor
from gpux.agent.config import Config

step, scope = sys.argv[1:]
config = Config.of_environment(os.environ)


def fault(here: str) -> None:
    if here != step:
        return
    try:
        crashed = os.open(f"{config.spool}/../crashed", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return
    os.write(crashed, str(os.getpid()).encode())
    if scope == "all":
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


sys.exit(Supervisor(config, fault=fault).run())
