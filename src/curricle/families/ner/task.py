"""The NER family's training task: windows in length-bucketed batches, cross-entropy on first sub-words, span F1 by domain.

Batches are drawn anew each epoch, so the file order of `append` decides nothing here but the data's digest.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from curricle.errors import ConfigError, DataError
from curricle.families.encoders import add_adapters, length_bucketed
from curricle.families.forgetting import changes, score
from curricle.families.ner.annotated import cross_entropy, domain_of, left_open, read_annotated, source_of, unknown_rows
from curricle.families.ner.calibration import Calibration, Sureness
from curricle.families.ner.checkpoint import WHOLE, require_positions
from curricle.families.ner.config import NerConfig
from curricle.families.ner.formats import load_records, spans_of
from curricle.families.ner.labels import tags_of
from curricle.families.ner.levers import HEAD, SoftTargets, by_labels, fit_added_rows, mixed, said_before
from curricle.families.ner.model import build_model, positions_of, write_labels
from curricle.families.ner.tagger import ScoredSet, Tagger, collate, spread
from curricle.families.ner.teacher import TeacherTargets
from curricle.families.ner.windows import IGNORE
from curricle.store import layout
from curricle.training.checkpoint import wrong_dtypes
from curricle.training.compiled import compile_forward
from curricle.training.precision import resolve_precision
from curricle.training.task import SCORE, StageContext

_log = logging.getLogger(__name__)


class NerTask:
    """One stage of NER training; satisfies `TrainingTask`."""

    def __init__(self, context: StageContext):
        config = context.config
        assert isinstance(config, NerConfig)
        self.config, self.ranks, self.device, self.parent = config, context.ranks, context.device, context.parent_dir
        self.precision = resolve_precision(config.training.trainer.precision, context.device)
        self._open_model(context.data_dir)
        old = self._read_windows(context.data_dir)
        self._ask_old_model()
        self._adapt(old)
        self._plan_replay(old)
        self._read_validation(context.data_dir)
        self._keep_old_model(context.data_dir)
        self.published: dict[str, torch.Tensor] = {}
        self.calibration: Calibration | None = None
        """Of the weights as they were validated; None once they are trained further."""
        self.epoch = 0

    def _open_model(self, data_dir: Path) -> None:
        """The model as it starts, in its tagger, with a head for the data's labels."""
        config = self.config
        self.tags = tags_of(json.loads((data_dir / "labels.json").read_text(encoding="utf-8")))
        whole = self.parent / WHOLE if self.parent is not None else None
        checkpoint = whole if whole is not None and whole.is_dir() else self.parent
        model, tokenizer, self.made = build_model(
            config.model.encoder, self.tags, checkpoint, dropout=config.model.dropout, seed=config.seed
        )
        require_positions(config.model.max_tokens, positions_of(model), checkpoint or config.model.encoder)
        by_width = min(4e-4 * (384 / model.config.hidden_size) ** 3, 1e-3)
        self.learning_rate = by_width * math.sqrt(config.data_loader.batch_size / 16)
        if self.device.type == "cpu":
            # beside dropout the fused attention is the slower one: by 3 % at 24 tokens, by 30 % at 100
            model.set_attn_implementation("eager")
        model.get_input_embeddings().requires_grad_(config.model.train_embeddings)
        self.tagger = Tagger(
            model.to(self.device),
            tokenizer,
            self.tags,
            self.device,
            max_tokens=config.model.max_tokens,
            stride=config.model.stride,
            token_budget=config.data_loader.token_budget,
        )

    def _read_windows(self, data_dir: Path) -> np.ndarray:
        """The training windows, and which tags the source of each does not annotate; bool [windows]: which come from the old dataset."""
        records = load_records(data_dir / "train.jsonl")
        self.data = self.tagger.encode([r["text"] for r in records], [spans_of(r) for r in records])
        if not self.data.windows:
            raise DataError(f"{data_dir}/train.jsonl holds no word to train on")
        if unreachable := sum(self.data.unreachable):
            rules = ", ".join(f"{n} {why}" for why, n in self.data.counts.items() if n and why != "overlapping")
            _log.warning(
                "%d of %d training annotations do not begin and end with words, so no prediction can equal them (%s)",
                unreachable,
                sum(map(len, self.data.gold)),
                rules,
            )
        sources = [source_of(records[w.record]) for w in self.data.windows]
        self.annotated = self._annotated(data_dir)
        rows = {s: unknown_rows(self.tagger.scheme, self.annotated.get(s, ())) for s in set(sources)}
        some = any(row.any() for row in rows.values())
        self.unknown = torch.from_numpy(np.stack([rows[s] for s in sources])) if some else None
        return np.array([domain_of(s) == "old" for s in sources])

    def _annotated(self, data_dir: Path) -> dict[str, set[str]]:
        """Source → the labels that it annotates. What no source annotates is open where the checkpoint knows it, and O anywhere else: nothing
        but that O would teach its rows anything."""
        annotated = read_annotated(data_dir)
        means = self.tagger.scheme.means
        fresh = {means[row].label for row in (self._added() if self.made else range(len(means)))}
        nobody = (fresh - {""}).difference(*annotated.values())
        return {source: own | nobody for source, own in annotated.items()}

    def _adapt(self, old: np.ndarray) -> None:
        """Fit the head's rows of added tags to the new windows, then put adapters in and compile, where the configuration says so."""
        if self._added():
            with self.precision.autocast():
                new = np.flatnonzero(~old)
                unknown = None if self.unknown is None else self.unknown[new]
                fit_added_rows(
                    self.tagger, [self.data.windows[i] for i in new], self._added(), self.config.seed, unknown
                )
        self.model = self.tagger.model = self._with_lora(self.tagger.model).to(self.device)
        self._freeze(self.config.model.frozen_layers)
        if self.config.training.trainer.compile:
            compile_forward(self.model)

    def _freeze(self, count: int) -> None:
        """Leave the lowest layers, and what lies below the first one, as they are."""
        named = [(layer_of(name), name, parameter) for name, parameter in self.model.named_parameters()]
        layers = 1 + max((layer for layer, _, _ in named if layer is not None), default=-1)
        if count > layers:
            raise ConfigError(
                f"model.frozen_layers is {count}, and the encoder has {layers} layers that can be told apart"
            )
        if count:
            first = next(place for place, (layer, _, _) in enumerate(named) if layer is not None)
            for place, (layer, _, parameter) in enumerate(named):
                if place < first or layer is not None and layer < count:
                    parameter.requires_grad_(False)

    def _ask_old_model(self) -> None:
        """What the model that this stage continues says of words that the data leave open to it."""
        self.said: list[torch.Tensor] = []
        if self.made is not None and self.unknown is not None:
            known = torch.ones(len(self.tags), dtype=torch.bool)
            known[self._added()] = False
            with self.precision.autocast():
                self.said = said_before(self.tagger, self.data.windows, self.unknown & known)

    def _added(self) -> list[int]:
        """Rows of the head that the checkpoint had nothing for."""
        return self.made.added() if self.made else []

    def _plan_replay(self, old: np.ndarray) -> None:
        """Which windows every epoch reads, and of which ring each reads the next share."""
        data = self.config.data
        replayed = np.zeros_like(old)
        if self.made is not None and data.replay is not None and data.replay_draw == "each_epoch":
            replayed = old
        self.fresh = np.flatnonzero(~replayed)
        self.ring = np.random.default_rng(self.config.seed).permutation(np.flatnonzero(replayed))
        if data.replay_choice == "labels":
            means = self.tagger.scheme.means
            labels = [{means[tag].label for tag in window.tags} - {""} for window in self.data.windows]
            self.ring = np.array(by_labels(labels, self.ring.tolist()), np.int64)
        self.drawn = max(1, round(len(self.ring) * (data.replay or 0.0))) if len(self.ring) else 0

    def _read_validation(self, data_dir: Path) -> None:
        paths = [data_dir / f"{name}.jsonl" for name in ("validation", "watch_old")]
        self.sets = [ScoredSet(path, self.tagger, self.annotated) for path in paths if path.is_file()]

    def _keep_old_model(self, data_dir: Path) -> None:
        """What the levers against forgetting need of the model that this stage continues from: its scores, soft targets, weights."""
        levers = self.config.forgetting
        self.before: dict[str, float] = {}
        self.soft: SoftTargets | TeacherTargets | None = None
        self.start: dict[str, torch.Tensor] = {}
        if self.parent is not None:
            with torch.no_grad(), self.precision.autocast():
                self.before = {name: s["f1"] for name, s in self._score(self._added())[0].items()}
        if levers.teacher:
            texts = [record["text"] for record in load_records(data_dir / "train.jsonl")]
            with torch.no_grad(), self.precision.autocast():
                self.soft = TeacherTargets(levers.teacher, self.tagger, self.data, texts)
        if self.made is None:
            if self.parent is not None and ((levers.distill and not levers.teacher) or levers.average):
                _log.warning(
                    "%s is a plain encoder: forgetting.distill and forgetting.average have no old model to keep",
                    self.parent,
                )
            return
        if levers.distill and not levers.teacher:
            with torch.no_grad(), self.precision.autocast():
                self.soft = SoftTargets(self.tagger, self.data.windows, self.made)
        if levers.average:
            self.start = {name: tensor.clone() for name, tensor in self._trained().items()}

    def _with_lora(self, model: Any) -> Any:
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
        depth = 1 + max((layer for n, _ in named if (layer := layer_of(n)) is not None), default=-1)
        groups: dict[tuple[str, bool], dict[str, Any]] = {}
        for name, parameter in named:
            layer = layer_of(name)
            if HEAD.search(name):
                part, scale = "head", of_head
            elif layer is not None:
                part, scale = f"layer{layer}", section.layer_decay ** (depth - 1 - layer)
            else:
                part, scale = "embeddings", section.layer_decay**depth
            plain = parameter.ndim < 2
            title = f"{part}/plain" if plain else part
            group = groups.setdefault((part, plain), {"params": [], "name": title, "lr_scale": scale})
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
        """Mean cross-entropy over the scored words of the whole batch, open to what a source does not annotate (`annotated.cross_entropy`), and with
        distillation its weighted divergence from the old model."""
        rows, words = batch
        self.published, self.calibration = {}, None
        if not len(rows):
            trained = (p.sum() * 0.0 for p in self.model.parameters() if p.requires_grad)
            nothing = sum(trained, torch.zeros((), device=self.device))
            return {"loss": nothing} | ({"distill": nothing.detach()} if self.soft else {})
        tensors = collate([self.data.windows[i] for i in rows], self.tagger.pad, self.device)
        labels = tensors.pop("labels")
        logits = self.model(**tensors).logits.float()
        scored = labels != IGNORE
        found = logits[scored]
        open_to = None
        if self.unknown is not None:
            before = torch.cat([self.said[i] for i in rows]).to(self.device) if self.said else None
            open_to = left_open(found, spread(self.unknown[rows], scored), before)
        summed = cross_entropy(found, labels[scored], self.tagger.scheme.outside, open_to)
        share = self.ranks.world_size / max(1, words)
        if self.soft is None:
            return {"loss": summed * share}
        divergence = self.soft.divergence(logits, labels, rows)
        return {
            "loss": (summed + self.config.forgetting.distill * divergence) * share,
            "distill": divergence.detach() * share,
        }

    def records(self, batch: tuple[np.ndarray, int]) -> list[dict[str, Any]]:
        """Line of the prepared train.jsonl (from 1) and text of each window."""
        windows = [self.data.windows[i] for i in batch[0]]
        decode = self.tagger.tokenizer.decode
        return [{"line": w.record + 1, "text": decode(w.ids.tolist(), skip_special_tokens=True)} for w in windows]

    def scalars(self) -> dict[str, float]:
        """Nothing further."""
        return {}

    def _score(
        self, banned: Sequence[int] = (), seen: Sureness | None = None
    ) -> tuple[dict[str, dict[str, float]], float]:
        first, loss = self.sets[0].score(self.tagger, self.ranks, banned, seen)
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
        may_end = training.early_stopping.enabled or self.epoch + 1 >= training.trainer.max_epochs
        if self.made is None or not self.start or not may_end:
            return self._metrics()
        trained = {name: tensor.clone() for name, tensor in self._trained().items()}
        best = -float("inf")
        for share in sorted({1.0, *self.config.forgetting.average}, reverse=True):
            weights = mixed(self.start, trained, share, self.made)
            self.load_weights(weights)
            scores = self._metrics()
            if scores[SCORE] > best:
                best, metrics, self.published = scores[SCORE], scores | {"val/average": share}, weights
                calibration = self.calibration
        self.load_weights(trained)
        self.calibration = calibration
        return metrics

    def _metrics(self) -> dict[str, float]:
        seen = Sureness(self.tagger.scheme.outside)
        scores, loss = self._score(seen=seen)
        self.calibration = self.sets[0].calibration(seen, self.ranks)
        out = {"val_loss": loss} | {f"val/{name}": value for name, value in scores.pop("all").items()}
        for domain, values in scores.items():
            out |= {f"val/{domain}/{name}": value for name, value in values.items()}
        after = {name: v["f1"] for name, v in scores.items()}
        return out | changes(self.before, after, "f1") | {SCORE: score(self.before, after, loss)}

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
        wrong = [
            f"the tensor {name} is {list(weights[name].shape)}, not {list(tensor.shape)}"
            for name, tensor in own.items()
            if weights[name].shape != tensor.shape
        ]
        if wrong := wrong + wrong_dtypes(own, weights):
            raise DataError(f"the saved weights do not fit this model: {wrong[0]}")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(weights[name])
        torch.clear_autocast_cache()  # within one autocast the bf16 copies of the former weights would go on being used

    def save_extras(self, folder: Path) -> None:
        """Configuration, tokenizer, labels, and after a validation how its probabilities are calibrated: with the weights beside them the folder
        loads with transformers."""
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
        if self.calibration is not None:
            self.calibration.write(target)


def layer_of(name: str) -> int | None:
    """The encoder layer that a parameter belongs to, by its name; None for embeddings, head and what layers share."""
    found = re.search(r"\.layers?\.(\d+)\.", name)
    return int(found[1]) if found else None


def build(context: StageContext) -> NerTask:
    """Make the task of one stage."""
    return NerTask(context)
