"""Jobs on Kubernetes, of any kind that an operator there runs.

`kind` says what is asked of a kind of job; each kind is one module (`pytorchjob`, `trainjob`) and one line in `curricle.launch.LAUNCHERS`; `auto` takes the one that a cluster has. `options` and
`settings` say where and with what pods run; `render` and `pods` make the object that is sent, `reasons` judges how it ended: pure functions.
`client` holds the launcher, `api` the cluster behind it, `logs` the streams, `preflight` the checks; `scheduler` is the same as a TorchX scheduler.
Only `api` imports kubernetes, when it is first used; only `scheduler` imports torchx.
"""
