"""Which arithmetic `auto` takes."""

import pytest
import torch

from curricle.training.precision import resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(("has", "name"), [({"amx_bf16": True, "avx512_bf16": True}, "bf16-mixed"), ({"amx_bf16": False, "avx512_bf16": True}, "32-true"),
                                           ({}, "32-true")])  # fmt: skip
def test_auto_is_bf16_on_a_processor_with_amx_only(monkeypatch, has, name):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert resolve_precision("auto", CPU).name == name


@pytest.mark.parametrize("setting", ["32-true", "16-mixed", "bf16-mixed"])
def test_what_is_set_stands(monkeypatch, setting):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert resolve_precision(setting, CPU).name == setting
