"""The NER family's training task: windows in length-bucketed batches, cross-entropy on first sub-words, span F1 by domain.

Batches are drawn anew each epoch, so the file order of `append` decides nothing here but the data's digest.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from curricle.errors import DataError
from curricle.families.encoders import add_adapters, length_bucketed
from curricle.families.ner.config import NerConfig
from curricle.families.ner.forgetting import changes, score
from curricle.families.ner.formats import load_records, spans_of
from curricle.families.ner.labels import tags_of
from curricle.families.ner.levers import HEAD, SoftTargets, fit_added_rows, mixed
from curricle.families.ner.model import build_model, write_labels
from curricle.families.ner.tagger import ScoredSet, Tagger, collate
from curricle.families.ner.windows import IGNORE
from curricle.store import layout
from curricle.train.compiled import compile_forward
from curricle.train.precision import resolve_precision
from curricle.train.task import SCORE, StageContext

_log = logging.getLogger(__name__)
WHOLE = "whole"
"""Folder in a LoRA stage's checkpoint with the model that has its adapters merged in."""


class NerTask:
    """One stage of NER training; satisfies `TrainingTask`."""

    def __init__(self, context: StageContext):
        config: NerConfig = context.config
        self.config, self.ranks, self.device = config, context.ranks, context.device
        self.tags = tags_of(json.loads((context.data_dir / "labels.json").read_text(encoding="utf-8")))
        parent = context.parent_dir
        if parent is not None and (parent / WHOLE).is_dir():
            parent = parent / WHOLE
        model, tokenizer, self.made = build_model(
            config.model.encoder, self.tags, parent, dropout=config.model.dropout, seed=config.seed
        )
        self.learning_rate = (
            4e-4 * (384 / model.config.hidden_size) ** 3 * math.sqrt(config.data_loader.batch_size / 16)
        )
        if (
            context.device.type == "cpu"
        ):  # beside dropout the fused attention is the slower one: by 3 % at 24 tokens, by 30 % at 100
            model.set_attn_implementation("eager")
        model.get_input_embeddings().requires_grad_(config.model.train_embeddings)
        self.tagger = Tagger(
            model.to(context.device),
            tokenizer,
            self.tags,
            context.device,
            max_tokens=config.model.max_tokens,
            stride=config.model.stride,
            token_budget=config.data_loader.token_budget,
        )
        records = load_records(context.data_dir / "train.jsonl")
        self.data = self.tagger.encode([r["text"] for r in records], [spans_of(r) for r in records])
        windows = self.data.windows
        if not windows:
            raise DataError(f"{context.data_dir}/train.jsonl holds no word to train on")
        old = np.array([records[w.record].get("origin") == "old" for w in windows])
        continued, added = self.made is not None, self.made.added() if self.made else []
        precision = resolve_precision(config.training.trainer.precision, context.device)
        if added:
            with precision.autocast():
                fit_added_rows(self.tagger, list(compress(windows, ~old)), added, config.seed)
        self.model = self.tagger.model = self._with_lora(model).to(context.device)
        if config.training.trainer.compile:
            compile_forward(self.model)
        self.sets = [
            ScoredSet(path, self.tagger)
            for name in ("validation", "watch_old")
            if (path := context.data_dir / f"{name}.jsonl").is_file()
        ]
        self.before: dict[str, float] = {}
        self.soft: SoftTargets | None = None
        self.start: dict[str, torch.Tensor] = {}
        self.published: dict[str, torch.Tensor] = {}
        levers = config.forgetting
        if parent is not None and not continued and (levers.distill or levers.average):
            _log.warning(
                "%s is a plain encoder: forgetting.distill and forgetting.average have no old model to keep",
                context.parent_dir,
            )
        replayed = old & (continued and config.data.replay is not None and config.data.replay_draw == "each_epoch")
        self.fresh = np.flatnonzero(~replayed)
        self.ring = np.random.default_rng(config.seed).permutation(np.flatnonzero(replayed))
        self.drawn = max(1, round(len(self.ring) * config.data.replay)) if len(self.ring) else 0
        self.epoch = 0
        with torch.no_grad(), precision.autocast():
            if parent is not None:
                self.before = {name: s["f1"] for name, s in self._score(added)[0].items()}
            if levers.distill and continued:
                self.soft = SoftTargets(self.tagger, windows, self.made)
        if levers.average and continued:
            self.start = {name: tensor.clone() for name, tensor in self._trained().items()}

    def _with_lora(self, model: torch.nn.Module) -> torch.nn.Module:
        lora = self.config.model.lora
        if not lora.enabled:
            return model
        from peft import TaskType

        heads = ["classifier", "score"]
        return add_adapters(
            model, lora, task_type=TaskType.TOKEN_CLS, target_modules="all-linear", exclude_modules=heads
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group a layer and kind: layer-wise decayed learning rates; no weight decay on biases and norms."""
        section = self.config.model
        of_head = section.head_lr_scale or (10.0 if self.made is None else 3.0)
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        depth = 1 + max((int(m[1]) for n, _ in named if (m := re.search(r"\.layers?\.(\d+)\.", n))), default=-1)
        groups: dict[tuple[str, bool], dict[str, Any]] = {}
        for name, parameter in named:
            layer = re.search(r"\.layers?\.(\d+)\.", name)
            if HEAD.search(name):
                part, scale = "head", of_head
            elif layer:
                part, scale = f"layer{layer[1]}", section.layer_decay ** (depth - 1 - int(layer[1]))
            else:
                part, scale = "embeddings", section.layer_decay**depth
            plain = parameter.ndim < 2
            group = groups.setdefault(
                (part, plain), {"params": [], "name": f"{part}{'/plain' * plain}", "lr_scale": scale}
            )
            if plain:
                group["weight_decay"] = 0.0
            group["params"].append(parameter)
        return list(groups.values())

    def batches(self, epoch: int) -> Sequence[tuple[np.ndarray, int]]:
        """This rank's (windows, scored words of the whole batch) of one epoch; the global batches do not depend on the world size."""
        draw = np.random.default_rng([self.config.seed, epoch])
        windows, size = self.data.windows, self.config.data_loader.batch_size
        self.epoch = epoch
        rows = np.concatenate(
            [self.fresh, self.ring.take(range(epoch * self.drawn, (epoch + 1) * self.drawn), mode="wrap")]
        )
        order = rows[draw.permutation(len(rows))]
        lengths = np.array([len(w.ids) for w in windows])
        chunks = length_bucketed(order, lengths, size)
        chunks = [chunks[i] for i in draw.permutation(len(chunks))]
        return [
            (chunk[self.ranks.rank :: self.ranks.world_size], int(sum(len(windows[i].tags) for i in chunk)))
            for chunk in chunks
        ]

    def losses(self, batch: tuple[np.ndarray, int]) -> dict[str, torch.Tensor]:
        """Mean cross-entropy over the scored words of the whole batch, and with distillation its weighted divergence from the old model."""
        rows, words = batch
        self.published = {}
        if not len(rows):
            nothing = sum(p.sum() * 0.0 for p in self.model.parameters() if p.requires_grad)
            return {"loss": nothing} | ({"distill": nothing.detach()} if self.soft else {})
        tensors = collate([self.data.windows[i] for i in rows], self.tagger.pad, self.device)
        labels = tensors.pop("labels")
        logits = self.model(**tensors).logits.float()
        summed = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum"
        )
        share = self.ranks.world_size / max(1, words)
        if self.soft is None:
            return {"loss": summed * share}
        divergence = self.soft.divergence(logits, labels, rows)
        return {
            "loss": (summed + self.config.forgetting.distill * divergence) * share,
            "distill": divergence.detach() * share,
        }

    def scalars(self) -> dict[str, float]:
        """Nothing further."""
        return {}

    def _score(self, banned: Sequence[int] = ()) -> tuple[dict[str, dict[str, float]], float]:
        first, loss = self.sets[0].score(self.tagger, self.ranks, banned)
        for watched in self.sets[1:]:
            more, _ = watched.score(self.tagger, self.ranks, banned)
            first = {k: v for k, v in more.items() if k != "all"} | first
        return first, loss

    def validate(self) -> dict[str, float]:
        """``val_loss`` (mean over words), ``val/f1`` and its kin, ``val/<domain>/...`` by domain; of a continued stage also before and change.

        ``val/score`` (`forgetting.score`) picks the checkpoint. With averages these are the numbers of the best one, and ``val/average``
        is its share.
        """
        training = self.config.training
        if not self.start or self.epoch + 1 < training.trainer.max_epochs and not training.early_stopping.enabled:
            return self._metrics()
        trained = {name: tensor.clone() for name, tensor in self._trained().items()}
        best = -float("inf")
        for share in sorted({1.0, *self.config.forgetting.average}, reverse=True):
            weights = mixed(self.start, trained, share, self.made)
            self.load_weights(weights)
            found = self._metrics()
            if found[SCORE] > best:
                best, metrics, self.published = found[SCORE], found | {"val/average": share}, weights
        self.load_weights(trained)
        return metrics

    def _metrics(self) -> dict[str, float]:
        scores, loss = self._score()
        out = {"val_loss": loss} | {f"val/{name}": value for name, value in scores.pop("all").items()}
        for domain, values in scores.items():
            out |= {f"val/{domain}/{name}": value for name, value in values.items()}
        after = {name: v["f1"] for name, v in scores.items()}
        return out | changes(self.before, after) | {SCORE: score(self.before, after, loss)}

    def weights(self) -> dict[str, torch.Tensor]:
        """The whole model, named as transformers names it; under LoRA the adapters and the head only (the whole one: `save_extras`).

        Right after a validation with averages it is the best of those.
        """
        return self.published or self._trained()

    def _trained(self) -> dict[str, torch.Tensor]:
        state = self.model.state_dict()
        if self.config.model.lora.enabled:
            trained = {n for n, p in self.model.named_parameters() if p.requires_grad}
            state = {n: t for n, t in state.items() if n in trained}
        return {name: tensor.detach().contiguous() for name, tensor in state.items()}

    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Take `weights` back, strictly."""
        own = self._trained()
        if own.keys() != weights.keys():
            raise DataError(
                f"the saved weights do not fit this model: missing {sorted(own.keys() - weights.keys())[:3]}, "
                f"unknown {sorted(weights.keys() - own.keys())[:3]}"
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(weights[name])
        torch.clear_autocast_cache()  # within one autocast the bf16 copies of the former weights would go on being used

    def save_extras(self, folder: Path) -> None:
        """Configuration, tokenizer and labels: with the weights beside them the folder loads with transformers."""
        folder.mkdir(parents=True, exist_ok=True)
        target = folder
        if self.config.model.lora.enabled:
            import copy

            target = folder / WHOLE
            whole = copy.deepcopy(self.model)
            whole.load_state_dict(self.weights(), strict=False)
            whole.merge_and_unload().save_pretrained(target)
        else:
            self.model.config.architectures = [type(self.model).__name__]
            self.model.config.save_pretrained(target)
        if self.published:
            save_file(self._trained(), folder / layout.TRAINED)
        self.tagger.tokenizer.model_max_length = self.config.model.max_tokens
        self.tagger.tokenizer.save_pretrained(target)
        write_labels(target, self.tags, self.made, self.data.counts)
        window = {"max_tokens": self.config.model.max_tokens, "stride": self.config.model.stride}
        (target / "windows.json").write_text(json.dumps(window) + "\n", encoding="utf-8")


def build(context: StageContext) -> NerTask:
    """Make the task of one stage."""
    return NerTask(context)
