"""The door through which `torchx run -s trainjob` finds our scheduler. TorchX takes only functions that are defined in this very module."""

from typing import Any

from torchx.plugins import register


@register.scheduler(name="trainjob")
def create_scheduler(session_name: str, **kwargs: Any) -> Any:
    """TorchX's factory. It is handed every TORCHX_* environment variable, of which none is ours."""
    from curricle.launch.kubernetes.scheduler import KubernetesScheduler
    from curricle.launch.kubernetes.trainjob import TRAINJOB

    return KubernetesScheduler(TRAINJOB, session_name)
