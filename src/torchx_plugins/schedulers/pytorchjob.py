"""The door through which `torchx run -s pytorchjob` finds our scheduler. TorchX takes only functions that are defined in this very module."""

from typing import Any

from torchx.plugins import register


@register.scheduler(name="pytorchjob")
def create_scheduler(session_name: str, **kwargs: Any) -> Any:
    """TorchX's factory. It is handed every TORCHX_* environment variable, of which none is ours."""
    from curricle.launch.kubernetes.pytorchjob import PYTORCHJOB
    from curricle.launch.kubernetes.scheduler import KubernetesScheduler

    return KubernetesScheduler(PYTORCHJOB, session_name)
