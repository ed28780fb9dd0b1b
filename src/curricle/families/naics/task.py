"""The NAICS training task: one stage's model, batches, losses and validation, behind the loop's protocol.

Three objectives. `geometry` trains nothing: it places codes by their texts. `retrieval` ranks all codes for every labelled text, and
holds the code table to the tree. `contrastive` is the classic scheme: filtered anchors, positives and negatives, negatives from
the whole batch of all ranks. Each distinct text goes through the encoder once a step (`live`) or once a stage (`cached`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curricle.errors import CheckpointError, DataError
from curricle.families.encoders import length_bucketed
from curricle.families.naics import geometry, losses, metrics
from curricle.families.naics.config import NaicsConfig
from curricle.families.naics.encoder import Encoder, cached_features
from curricle.families.naics.model import NaicsHead
from curricle.families.naics.prepare import NaicsTable, load
from curricle.families.naics.triplets import sample
from curricle.store import layout
from curricle.training.checkpoint import read_weights
from curricle.training.compiled import compiled
from curricle.training.distributed import gather
from curricle.training.precision import resolve_precision
from curricle.training.task import StageContext, TrainingTask

CHANNELS = ("title", "description", "examples", "exclusions")
ADAPTER = "adapter"
"""Folder in a checkpoint with the adapters as peft writes them, if the encoder has any."""
STRESS_ROWS = 256
CHANNEL_DROPOUT = 0.3
APART = 10
"""Of so many codes, one is kept from a stage that trains on whole codes: what it validates their placing by."""
STRUCTURE_FLOOR = 0.985
"""Pearson, NDCG@10 and edge MAP below which the validation loss is charged the shortfall."""


def build(context: StageContext) -> TrainingTask:
    """The task of one stage.

    Raises:
        CheckpointError: the parent's weights do not fit this configuration; names the first that does not.
        DataError: there are no validation texts.
    """
    config = context.config
    assert isinstance(config, NaicsConfig)
    if config.curriculum.objective == "contrastive":
        return ContrastiveTask(context, config)
    return RetrievalTask(context, config)


class CodeSpace(nn.Module):
    """Encoder and head under one roof, so that the loop sees one module."""

    def __init__(self, encoder: Encoder, head: NaicsHead):
        super().__init__()
        self.encoder, self.head = encoder, head

    def weights(self) -> dict[str, Tensor]:
        """All that a checkpoint holds: the head, and the adapters where there are any."""
        adapters = {f"adapter.{name}": p for name, p in self.encoder.adapter_weights().items()}
        return {f"head.{name}": p for name, p in self.head.state_dict().items()} | adapters

    @torch.no_grad()
    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take weights back strictly; adapters are put in first when the weights have them."""
        if any(name.startswith("adapter.") for name in weights):
            self.encoder.add_adapters()
        here = self.weights()
        missing, unknown = sorted(set(here) - set(weights)), sorted(set(weights) - set(here))
        missing = [
            name
            for name in missing
            if not name.startswith("adapter.") or any(n.startswith("adapter.") for n in weights)
        ]
        wrong = [
            f"{n} is {list(weights[n].shape)}, not {list(here[n].shape)}"
            for n in here
            if n in weights and weights[n].shape != here[n].shape
        ]
        if missing or unknown or wrong:
            what = wrong or [f"{n} is missing" for n in missing] or [f"{n} is not part of this model" for n in unknown]
            raise CheckpointError(
                f"the checkpoint does not fit the configured model ({what[0]}); compare the `model` section with its config.yaml"
            )
        for name, tensor in here.items():
            if name in weights:
                tensor.copy_(weights[name])


def load_model(config: NaicsConfig, table: NaicsTable, device: torch.device) -> CodeSpace:
    """A fresh model for these codes, seeded by the configuration."""
    torch.manual_seed(config.seed)
    encoder = Encoder(config.model, device)
    return CodeSpace(
        encoder, NaicsHead(config.model, encoder.width, torch.from_numpy(table.level).to(device)).to(device)
    )


def read_checkpoint(folder: Path) -> dict[str, Tensor]:
    """The weights of a stage's checkpoint: the head's, and the adapters' where the folder holds peft's copy of them.

    Raises:
        CheckpointError: they cannot be read, the adapters are missing, or a tensor is not finite.
    """
    weights = read_weights(folder / layout.WEIGHTS)
    if (folder / ADAPTER).is_dir() and not any(name.startswith("adapter.") for name in weights):
        raise CheckpointError(
            f"{folder / layout.WEIGHTS} lacks the adapters, which {folder / ADAPTER} tells of; take a whole copy"
        )
    return weights


def distinct_texts(table: NaicsTable) -> list[str]:
    """Every text that may be asked for while training: training and validation texts, and channels; each once, in a fixed order."""
    channels = [text for name in CHANNELS for text in table.channels[name] if text]
    return list(
        dict.fromkeys(
            [*(t.text for t in table.split("train")), *(t.text for t in table.split("validation")), *channels]
        )
    )


class _Task:
    """What all objectives share: features of texts and channels, validation, weights."""

    def __init__(self, context: StageContext, config: NaicsConfig):
        self.context, self.config, self.ranks, self.device = context, config, context.ranks, context.device
        self.learning_rate = config.training.learning_rate
        self.table = load(context.data_dir)
        self.tree = self.table.tree
        self._scalars: dict[str, float] = {}
        self._number_texts()
        self._open_model()
        self._ready_encoder()
        if context.parent_dir is None:
            self._start_head()
        self._measure_tree()
        self._freeze()

    def _number_texts(self) -> None:
        """Number all texts that may be asked for, and say which of them train, validate and make up each code's channels."""
        config = self.config
        self.texts = [t for t in self.table.split("train") if t.kind in config.curriculum.texts]
        self.validation = self.table.split("validation")
        if not self.validation:
            place = self.context.data_dir
            raise DataError(f"{place} has no validation texts; a stage cannot choose its best checkpoint")
        self.distinct = distinct_texts(self.table)
        self.number = {text: i for i, text in enumerate(self.distinct)}
        channels = [[self.number.get(text, -1) if text else -1 for text in self.table.channels[n]] for n in CHANNELS]
        self.channels = np.array(channels).T
        """int64 [N, 4]: the number of each channel's text, -1 where a code has none."""
        column = {code: i for i, code in enumerate(self.tree.leaves)}
        self.validation_rows = np.array([self.number[t.text] for t in self.validation])
        self.validation_target = np.array([column[self.tree.index[t.code]] for t in self.validation])

    def _open_model(self) -> None:
        """A fresh model, or the parent's; with adapters where this stage trains the encoder."""
        curriculum = self.config.curriculum
        self.space = load_model(self.config, self.table, self.device)
        self.model: nn.Module = self.space
        self.head, self.encoder = self.space.head, self.space.encoder
        self.live = curriculum.features == "live" and "encoder" in curriculum.trainable
        if self.context.parent_dir is not None:
            self.space.load_weights(read_checkpoint(self.context.parent_dir))
        if self.live:
            self.encoder.add_adapters()

    def _ready_encoder(self) -> None:
        """What the encoder's texts need: tokens of each where it runs in every step, else (and to start from) features of each."""
        config, trainer = self.config, self.config.training.trainer
        self.features: Tensor | None = None
        self.tokens: list[list[int]] = []
        if self.live:
            dtype = resolve_precision(trainer.precision, self.device).dtype
            self.encoder.prepare_training(dtype, config.curriculum.dropout)
            self.tokens = self.encoder.tokenize(self.distinct, config.model.max_tokens)
        if trainer.compile:
            self.encoder.states = compiled(self.encoder.states)
        if not self.live or self.context.parent_dir is None:
            self.features = self._cached()

    def _start_head(self) -> None:
        """Place the codes by their texts: each by the mean of its channels' features."""
        channels, present = self._channel_features(np.arange(len(self.tree.codes)), cached=True)
        mean = nn.functional.normalize((channels * present.unsqueeze(-1)).sum(1), dim=-1)
        subtree, shown = torch.from_numpy(self.tree.subtree), torch.from_numpy(~self.table.cold)
        self.head.start(mean, subtree.to(self.device), shown.to(self.device))

    def _measure_tree(self) -> None:
        """True distances of all codes, and which codes are hidden."""
        everyone = np.arange(len(self.tree.codes))
        self.hidden = torch.from_numpy(self.table.cold).to(self.device)
        """Codes that training must not see: no loss ranks them, and their distances below are 0, which the losses leave out."""
        distances = self.tree.tree_distance(everyone[:, None], everyone[None, :])
        self.true = torch.from_numpy(distances).to(self.device).float()
        self.true[self.hidden] = 0
        self.true[:, self.hidden] = 0

    def _cached(self) -> Tensor:
        precision = resolve_precision(self.config.training.trainer.precision, self.device)
        with precision.autocast():
            features = cached_features(
                self.encoder,
                self.distinct,
                self.config.model.max_tokens,
                self.config.data_loader.token_budget,
                self.context.work_dir / precision.name,
            )
        return torch.from_numpy(features).to(self.device)

    def _freeze(self) -> None:
        parts = self.config.curriculum.trainable if self.config.curriculum.objective != "geometry" else ()
        self.model.requires_grad_(False)
        owned: dict[str, list[nn.Parameter]] = {
            "encoder": list(self.encoder.adapter_weights().values()) if self.live else [],
            "fusion": list(self.head.fusion.parameters()),
            "head": [*self.head.linear.parameters(), *self.head.residual.parameters()],
            "table": [self.head.table],
            "temperature": [self.head.log_tau],
            "radius": [self.head.radius],
        }
        self.groups = {name: owned[name] for name in parts if owned[name]}
        for parameters in self.groups.values():
            for parameter in parameters:
                parameter.requires_grad_(True)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Table and temperature learn ten times as fast as the encoder, the rest twice."""
        scale = {"encoder": 1.0, "table": 10.0, "temperature": 10.0}
        return [
            {"name": name, "params": parameters, "lr_scale": scale.get(name, 2.0)}
            | ({"weight_decay": 0.0} if name in ("table", "temperature", "radius") else {})
            for name, parameters in self.groups.items()
        ]

    def _text_features(self, rows: np.ndarray) -> Tensor:
        """Features of distinct texts [n] → [n, width]; each text is encoded once however often it is asked for."""
        if self.features is not None and not self.live:
            return self.features[torch.from_numpy(rows)]
        unique, back = np.unique(rows, return_inverse=True)
        return self.encoder.encode(
            [self._thinned(self.tokens[i]) for i in unique], self.config.data_loader.token_budget
        )[torch.from_numpy(back).to(self.device)]

    def _thinned(self, tokens: list[int]) -> list[int]:
        """In training, a text without a random share of its tokens: one that is never seen twice alike is not learned by heart."""
        share = self.config.curriculum.word_dropout
        if not share or not self.model.training:
            return tokens
        inner = tokens[1:-1]
        kept = [token for token, draw in zip(inner, torch.rand(len(inner)).tolist(), strict=True) if draw >= share]
        return [tokens[0], *(kept or inner), tokens[-1]]

    def _channel_features(self, codes: np.ndarray, cached: bool = False, drop: bool = False) -> tuple[Tensor, Tensor]:
        """Channels of codes: features [n, 4, width] (zero where absent) and presence [n, 4]; `drop` hides present channels at random."""
        rows = self.channels[codes]
        present = torch.from_numpy(rows >= 0).to(self.device)
        if drop:
            kept = present & (torch.rand(present.shape, device=self.device) >= CHANNEL_DROPOUT)
            present = torch.where(kept.any(1, keepdim=True), kept, present)
        wanted = rows[rows >= 0]
        if cached:
            assert self.features is not None
            features = self.features[torch.from_numpy(wanted)]
        else:
            features = self._text_features(wanted)
        out = torch.zeros((*rows.shape, features.shape[-1]), device=self.device)
        out[torch.from_numpy(rows >= 0).to(self.device)] = features.float()
        return out, present

    def _mean(self, value: Tensor) -> Tensor:
        """See `losses.Mean`."""
        return gather(value[None], self.ranks).mean(0)

    def scalars(self) -> dict[str, float]:
        """The five global-batch figures of the last step."""
        return self._scalars

    def _count(self, batch: int, negatives: float, distances: Tensor, dim: int, hard: bool) -> None:
        """Set the figures of a step; distances: [rows, columns] that its loss compares."""
        rows, columns = distances.shape
        self._scalars = {
            "train/global_batch/global_batch_size": float(batch),
            "train/global_batch/global_k_negatives": float(negatives),
            "train/global_batch/global_negatives_memory_mb": columns * dim * 4 / 2**20,
            "train/global_batch/similarity_matrix_memory_mb": rows * columns * 4 / 2**20,
            "train/global_batch/global_hard_negatives_used": float(hard),
        }

    def validate(self) -> dict[str, float]:
        """Retrieval of held-out texts, and structure of the table.

        ``val_loss = 1 - MRR + Σ max(0, STRUCTURE_FLOOR - s)`` over s in (Pearson, NDCG@10, edge MAP): the best retrieval among
        checkpoints whose geometry holds.
        """
        self._place_hidden()
        features = self._text_features(self.validation_rows).float()
        with torch.autocast(self.device.type, enabled=False):
            direction = self.head.direction(features)
            level = torch.full((len(direction),), 6, device=self.device)
            leaves = torch.from_numpy(self.tree.leaves).to(self.device)
            distances = self.head.to_codes(direction, level, leaves)
            ranking = metrics.retrieval(
                -distances.double().cpu().numpy(),
                self.validation_target,
                [self.tree.codes[i] for i in self.tree.leaves],
            )
            form = metrics.structure(self.head.between(), self.tree)
        shortfall = sum(max(0.0, STRUCTURE_FLOOR - form[name]) for name in ("pearson", "ndcg@10", "edge_map"))
        return {
            "val_loss": 1 - ranking["mrr"] + shortfall,
            **{f"val/{k}": v for k, v in ranking.items()},
            **{f"structure/{k}": v for k, v in form.items()},
        }

    @torch.no_grad()
    def _place_hidden(self) -> None:
        """Codes hidden from training stand where their texts put them, as a code that is new tomorrow would."""
        codes = np.flatnonzero(self.table.cold)
        if len(codes):
            channels = self._channel_features(codes)
            with torch.autocast(self.device.type, enabled=False):
                self.head.table[codes] = self.head.by_text(*channels, self.head.level[codes])

    def weights(self) -> dict[str, Tensor]:
        """See `CodeSpace.weights`."""
        return self.space.weights()

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """See `CodeSpace.load_weights`."""
        self.space.load_weights(weights)

    def save_extras(self, folder: Path) -> None:
        """The tokenizer, and the adapters as peft writes them, so that transformers and peft alone can load the encoder."""
        self.encoder.tokenizer.save_pretrained(folder / "tokenizer")
        if self.encoder.adapted:
            self.encoder.model.save_pretrained(folder / ADAPTER)


@dataclass(frozen=True)
class TextBatch:
    """This rank's part of a batch: items (texts, then codes behind them), and rows of the table for the stress."""

    items: np.ndarray
    rows: np.ndarray
    size: int


class RetrievalTask(_Task):
    """Rank all codes for every labelled text; with `geometry`, nothing is trained."""

    def __init__(self, context: StageContext, config: NaicsConfig):
        super().__init__(context, config)
        codes = np.flatnonzero(~self.table.cold) if "code" in config.curriculum.texts else np.empty(0, dtype=np.int64)
        apart = np.random.default_rng([config.seed, 1]).permutation(len(codes)) % APART == 0
        self.validation_codes, codes = codes[apart], codes[~apart]
        index, sole = self.tree.index, self.tree.sole_leaf
        target = np.array([index[t.code] for t in self.texts], dtype=np.int64)
        target = np.concatenate([target, codes])
        self.target = np.where(sole[target] >= 0, sole[target], target)
        self.text_rows = np.array([self.number[t.text] for t in self.texts], dtype=np.int64)
        self.code_items = codes
        self.ancestors = torch.from_numpy(self.tree.ancestors).to(self.device)
        if not len(self.target) and self.groups:
            raise DataError(
                f"stage {config.curriculum.name}: no training text of the kinds {', '.join(config.curriculum.texts)}"
            )
        self.ranked = torch.where(self.hidden, 0, self.head.level)
        """Level of each code that may be ranked, 0 for the others."""

    def batches(self, epoch: int) -> list[TextBatch]:
        """Batches of like length out of shuffled chunks; every rank takes every W-th item."""
        rng = np.random.default_rng([self.config.seed, epoch])
        order = rng.permutation(len(self.target))
        size, world = self.config.data_loader.batch_size, self.ranks.world_size
        lengths = np.zeros(len(self.target), dtype=np.int64)
        if self.live:
            lengths[: len(self.text_rows)] = [len(self.tokens[row]) for row in self.text_rows]
        parts = length_bucketed(order, lengths, size)
        parts = [part[: len(part) // world * world] for part in parts]
        mine = slice(self.ranks.rank, None, world)
        made = []
        for k in rng.permutation(len(parts)):
            if len(parts[k]):
                rows = self._stress_rows(rng)
                made.append(TextBatch(parts[k][mine], rows[mine], len(parts[k])))
        return made

    def _stress_rows(self, rng: np.random.Generator) -> np.ndarray:
        """The rows of the table whose distances a batch measures: `STRESS_ROWS` drawn ones or all, equally many for every rank."""
        codes, world = len(self.tree.codes), self.ranks.world_size
        if codes <= STRESS_ROWS:
            return np.arange(codes // world * world)
        return rng.choice(codes, STRESS_ROWS // world * world, replace=False)

    def losses(self, batch: TextBatch) -> dict[str, Tensor]:
        """``loss`` = leaf·CE(own level) + level·CE(coarser levels) + stress·(table, text-only codes) + balance·routing."""
        weights, head = self.config.curriculum.loss, self.head
        texts = batch.items[batch.items < len(self.text_rows)]
        codes = self.target_codes(batch.items)
        features = (
            self._text_features(self.text_rows[texts]).float()
            if len(texts)
            else torch.zeros((0, self.encoder.width), device=self.device)
        )
        channels = self._channel_features(codes, drop=self.model.training) if len(codes) else None
        with torch.autocast(self.device.type, enabled=False):
            routing = head.fusion.no_routing().to(self.device)
            if channels is not None:
                fused, routing = head.fusion(*channels)
                features = torch.cat([features, fused])
            items = np.concatenate([texts, batch.items[batch.items >= len(self.text_rows)]])
            target = torch.from_numpy(self.target[items]).to(self.device)
            own = head.level[target]
            everyone = torch.arange(len(head.level), device=self.device)
            distances = head.to_codes(head.direction(features), own, everyone)
            rank = losses.level_cross_entropy(
                head.logits(distances),
                self.ancestors[target],
                own,
                self.ranked,
                weights.leaf,
                weights.level,
                weights.smoothing,
            )
            rows = torch.from_numpy(batch.rows).to(self.device)
            radius, points = head.codes()
            stress = losses.stress(
                geometry.pairwise(radius[rows], points[rows], radius, points), self.true[rows], head.scale, self._mean
            )
            terms = {"ranking": rank, "stress": stress}
            total = rank + weights.stress * stress
            if len(
                self.code_items
            ):  # also where this rank's part has no code: another rank's may, and the means are common
                placed = self._placed(features[len(texts) :], codes)
                terms |= {
                    "text_stress": losses.stress(placed, self.true[codes], head.scale, self._mean),
                    "balance": losses.balance(routing, self._mean),
                }
                total = total + weights.stress * terms["text_stress"] + weights.balance * terms["balance"]
        self._count(batch.size, len(head.level) - 1, distances, points.shape[1], hard=False)
        return {"loss": total} | terms

    def validate(self) -> dict[str, float]:
        """As for all; where whole codes are trained on also ``val/code_stress``, the stress of the codes kept apart, each placed by its texts
        alone, against all others. ``val_loss`` counts it, or it would see nothing of what such a stage learns."""
        scores = super().validate()
        if len(self.validation_codes):
            channels = self._channel_features(self.validation_codes)
            with torch.autocast(self.device.type, enabled=False):
                placed = self._placed(self.head.fusion(*channels)[0], self.validation_codes)
            stress = float(losses.stress(placed, self.true[self.validation_codes], self.head.scale))
            scores |= {"val/code_stress": stress, "val_loss": scores["val_loss"] + stress}
        return scores

    def records(self, batch: TextBatch) -> list[dict[str, Any]]:
        """Text and code of each text; a code that is trained on as a whole has its code alone."""
        texts = [self.texts[i] for i in batch.items[batch.items < len(self.text_rows)]]
        codes = [{"code": self.tree.codes[i]} for i in self.target_codes(batch.items)]
        return [{"code": t.code, "text": t.text} for t in texts] + codes

    def _placed(self, fused: Tensor, codes: np.ndarray) -> Tensor:
        """Distances [n, N] from codes, placed by their fused channels, to all codes of the table."""
        everyone = torch.arange(len(self.head.level), device=self.device)
        return self.head.to_codes(
            self.head.direction(fused), self.head.level[torch.from_numpy(codes).to(self.device)], everyone
        )

    def target_codes(self, items: np.ndarray) -> np.ndarray:
        """The codes among a batch's items."""
        return self.code_items[items[items >= len(self.text_rows)] - len(self.text_rows)]


@dataclass(frozen=True)
class PairBatch:
    """This rank's part of a batch of (anchor, positive) pairs, with the negatives drawn for each (-1 pads; None means all codes)."""

    anchors: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray | None


class ContrastiveTask(_Task):
    """The classic objective: text-only code points, filtered triplets, negatives from the whole batch of all ranks.

    The code table follows the text-only points at each validation, so that search and later stages see what was learned.
    """

    def __init__(self, context: StageContext, config: NaicsConfig):
        super().__init__(context, config)
        self.groups.pop("table", None)
        self.head.table.requires_grad_(False)
        self.triplets = sample(self.table, config.curriculum, config.seed)
        same = self.tree.chain
        self.same = torch.from_numpy(same).to(self.device)

    def batches(self, epoch: int) -> list[PairBatch]:
        """Shuffled pairs; the last part of a batch that does not divide by the ranks is left out."""
        rng = np.random.default_rng([self.config.seed, epoch])
        t, size, world = self.triplets, self.config.data_loader.batch_size, self.ranks.world_size
        order = rng.permutation(len(t.anchors))
        made = []
        for i in range(0, len(order), size):
            part = order[i : i + size]
            part = part[: len(part) // world * world][self.ranks.rank :: world]
            if len(part):
                made.append(
                    PairBatch(t.anchors[part], t.positives[part], None if t.negatives is None else t.negatives[part])
                )
        return made

    def records(self, batch: PairBatch) -> list[dict[str, Any]]:
        """The codes of each pair; the negatives follow from seed and stage."""
        codes = self.tree.codes
        return [{"anchor": codes[a], "positive": codes[p]} for a, p in zip(batch.anchors, batch.positives, strict=True)]

    def losses(self, batch: PairBatch) -> dict[str, Tensor]:
        """InfoNCE over the pool of all ranks' negatives, anchors and positives; codes as near as the positive are no negatives."""
        weights, head = self.config.curriculum.loss, self.head
        everyone = np.flatnonzero(~self.table.cold)
        drawn = everyone if batch.negatives is None else batch.negatives.ravel()
        held = np.concatenate([batch.anchors, batch.positives, drawn])
        unique, back = np.unique(held, return_inverse=True)
        padding = unique < 0
        channels = self._channel_features(np.where(padding, 0, unique))
        with torch.autocast(self.device.type, enabled=False):
            fused, routing = head.fusion(*channels)
            level = head.level[torch.from_numpy(np.where(padding, 0, unique)).to(self.device)]
            radius, direction = head.radii()[level - 2], head.direction(fused)
            place = torch.from_numpy(back).to(self.device)
            code = torch.from_numpy(held).to(self.device)
            p = len(batch.anchors)
            pool_code = gather(code, self.ranks)
            mine = torch.from_numpy(unique).to(self.device)
            counted = (mine >= 0) & ~torch.isin(
                mine, pool_code[: self.ranks.rank * len(code)]
            )  # each code of the batch on one rank
            balance = losses.balance(routing[counted], self._mean)
            pool_radius, pool_direction = gather(radius[place], self.ranks), gather(direction[place], self.ranks)
            first = _first_of_each(pool_code)
            pool_code, pool_radius, pool_direction = pool_code[first], pool_radius[first], pool_direction[first]
            anchor_r, anchor_u = radius[place[:p]], direction[place[:p]]
            near = geometry.distance_polar(anchor_r, anchor_u, radius[place[p : 2 * p]], direction[place[p : 2 * p]])
            far = geometry.pairwise(anchor_r, anchor_u, pool_radius, pool_direction)
            anchors, positives = code[:p], code[p : 2 * p]
            allowed = self.true[anchors][:, pool_code] > self.true[anchors, positives][:, None]
            allowed &= self.same[anchors][:, None] != self.same[pool_code][None, :]
            loss = losses.contrastive(head.logits(near), head.logits(far), allowed, self._mean)
            stress = losses.stress(far, self.true[anchors][:, pool_code], head.scale, self._mean)
        self._count(
            p * self.ranks.world_size,
            float(allowed.sum(1).float().mean()),
            far,
            direction.shape[1],
            hard=True,
        )
        total = loss + weights.stress * stress + weights.balance * balance
        return {"loss": total, "contrastive": loss, "stress": stress, "balance": balance}

    def validate(self) -> dict[str, float]:
        """As for retrieval, after the table has taken the text-only points."""
        with torch.no_grad():
            everyone = np.arange(len(self.tree.codes))
            channels = self._channel_features(everyone)
            with torch.autocast(self.device.type, enabled=False):
                self.head.table.copy_(self.head.by_text(*channels, self.head.level))
        return super().validate()


def _first_of_each(codes: Tensor) -> Tensor:
    """Positions of the first occurrence of each code, paddings (-1) left out, in order of code."""
    unique, back = torch.unique(codes, return_inverse=True)
    first = torch.full((len(unique),), len(codes), device=codes.device).scatter_reduce(
        0, back, torch.arange(len(codes), device=codes.device), "amin"
    )
    return first[unique >= 0]
