"""What the names of extended resources mean: an accelerator, which a job has one kind of, its companion (the memory or cores of a shared GPU), or anything else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

_COMPANION = re.compile(
    r"(gpu|cuda).*(mem|core|percent|prio)|(mem|memory|percent|percentage|priority|(?<!neuron)cores?)$"
)
_ACCELERATOR = re.compile(r"gpu|cuda|^mig-|gaudi|^hpu|neuron|^tpu|npu|ascend|^dcu|^mlu|^i915|^xe$")
_MAKERS = re.compile(
    r"(^|\.)(nvidia|amd|intel|habana|google|amazonaws|amazon|huawei|hygon|cambricon|kunlunxin|enflame|iluvatar|metax-tech|mthreads|biren|birentech|"
    r"qualcomm|furiosa|rebellions|graphcore|sophgo|tenstorrent|tencent|aliyun|volcano)\.(com|ai|cn|io|sh|in)$"
)
"""Domains of those who make accelerators, or share them out: what they name is one, unless the name says otherwise."""
_OTHER = re.compile(
    r"rdma|hca|infiniband|^ib|roce|sriov|s-iov|nic|netdev|hostdev|vlan|eni|efa|^ip|fuse|kvm|tun|vhost|sgx|epc|qat|dsa|fpga|hugepage|vcpu|disk|storage"
)


def kind_of(resource: str) -> Literal["accelerator", "companion", "other"]:
    """What a resource is, by its name: ``nvidia.com/gpu``, ``nvidia.com/mig-1g.5gb``, ``habana.ai/gaudi``, ``gpu.intel.com/i915`` and
    ``volcano.sh/vgpu-number`` are accelerators; ``nvidia.com/gpumem``, ``nvidia.com/gpucores`` and ``volcano.sh/vgpu-memory`` companions of one;
    ``rdma/ib`` is anything else."""
    name = resource.rpartition("/")[2].lower()
    known = bool(_ACCELERATOR.search(name))
    maker = bool(_MAKERS.search(resource.rpartition("/")[0].lower())) and not _OTHER.search(name)
    if not known and not maker:
        return "other"
    return "companion" if _COMPANION.search(name) else "accelerator"


def accelerators(resources: Iterable[str]) -> list[str]:
    """Those that are accelerators, sorted."""
    return sorted(name for name in resources if kind_of(name) == "accelerator")
