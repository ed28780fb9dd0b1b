"""The door through which `torchx run -s pytorchjob` finds our scheduler."""

from torchx.plugins import register

from curricle.launch.pytorchjob.scheduler import create_scheduler

pytorchjob = register.scheduler(name="pytorchjob")(create_scheduler)
