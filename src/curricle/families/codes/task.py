"""The training task of a classification's codes: one stage's model, batches, losses and validation, behind the loop's protocol.

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
from safetensors.torch import save_file
from torch import Tensor, nn

from curricle.errors import CheckpointError, DataError
from curricle.families.codes import geometry, losses, metrics
from curricle.families.codes.carrying import CLASSIFICATION, read_carried, require_classification
from curricle.families.codes.config import CodesConfig
from curricle.families.codes.continued import classification_digest
from curricle.families.codes.encoder import Encoder, cached_features
from curricle.families.codes.model import CodesHead
from curricle.families.codes.prepare import CodeTable, load
from curricle.families.codes.slips import hasty
from curricle.families.codes.triplets import sample
from curricle.families.encoders import check_weight_digests, length_bucketed, weight_digests
from curricle.families.forgetting import changes, score
from curricle.store import layout
from curricle.store.strict import read_json
from curricle.training.checkpoint import read_weights, wrong_dtypes
from curricle.training.compiled import compiled
from curricle.training.distributed import gather
from curricle.training.optimizers import MANIFOLD
from curricle.training.precision import resolve_precision
from curricle.training.task import SCORE, StageContext, TrainingTask

CHANNELS = ("title", "description", "examples", "exclusions")
ENCODER = "encoder.json"
"""File in a checkpoint with the sha256 of the encoder's weights, where those lie in a folder, which may change."""
ADAPTER = "adapter"
"""Folder in a checkpoint with the adapters as peft writes them, if the encoder has any."""
POINTS = "head.points"
"""The code table as points of a manifold, among the weights that training goes on from (`trained.safetensors`)."""
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
    assert isinstance(config, CodesConfig)
    if config.curriculum.objective == "contrastive":
        return ContrastiveTask(context, config)
    return RetrievalTask(context, config)


class CodeSpace(nn.Module):
    """Encoder and head under one roof, so that the loop sees one module."""

    def __init__(self, encoder: Encoder, head: CodesHead):
        super().__init__()
        self.encoder, self.head = encoder, head

    def weights(self) -> dict[str, Tensor]:
        """All that a checkpoint holds: the head, and the adapters where there are any."""
        self.head.write_table()
        adapters = {f"adapter.{name}": p for name, p in self.encoder.adapter_weights().items()}
        head = {f"head.{name}": p for name, p in self.head.state_dict().items()}
        head.pop(POINTS, None)
        return head | adapters

    def trained_weights(self) -> dict[str, Tensor]:
        """What training goes on from where that is more than `weights`: where the codes are points of a manifold, those too. Else nothing."""
        return self.weights() | {POINTS: self.head.points.data} if self.head.points is not None else {}

    @torch.no_grad()
    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take weights back strictly; adapters are put in first when the weights have them."""
        if any(name.startswith("adapter.") for name in weights):
            self.encoder.add_adapters()
        points = weights.get(POINTS)
        weights = {name: tensor for name, tensor in weights.items() if name != POINTS}
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
        wrong += wrong_dtypes(here, weights)
        if missing or unknown or wrong:
            what = wrong or [f"{n} is missing" for n in missing] or [f"{n} is not part of this model" for n in unknown]
            raise CheckpointError(
                f"the checkpoint does not fit the configured model ({what[0]}); compare the `model` section with its config.yaml"
            )
        for name, tensor in here.items():
            if name in weights:
                tensor.copy_(weights[name])
        if self.head.points is None:
            return
        if points is None:
            self.head.read_table()
        else:
            self.head.points.copy_(points)


def load_model(config: CodesConfig, table: CodeTable, device: torch.device) -> CodeSpace:
    """A fresh model for these codes, seeded by the configuration."""
    torch.manual_seed(config.seed)
    encoder = Encoder(config.model, device)
    return CodeSpace(
        encoder, CodesHead(config.model, encoder.width, torch.from_numpy(table.tree.depth).to(device)).to(device)
    )


def read_checkpoint(folder: Path, encoder: str = "") -> dict[str, Tensor]:
    """The weights of a stage's checkpoint: the head's, and the adapters' where the folder holds peft's copy of them.

    Args:
        encoder: the encoder that they are to be used with; where the checkpoint says what its own was, it is compared.

    Raises:
        CheckpointError: they cannot be read, the adapters are missing, a tensor is not finite, or the encoder is another one.
    """
    if (record := folder / ENCODER).is_file():
        check_weight_digests(encoder, _encoder_record(record), folder)
    weights = read_weights(folder / layout.WEIGHTS)
    if (folder / ADAPTER).is_dir() and not any(name.startswith("adapter.") for name in weights):
        raise CheckpointError(
            f"{folder / layout.WEIGHTS} lacks the adapters, which {folder / ADAPTER} tells of; take a whole copy"
        )
    return weights


def _encoder_record(path: Path) -> dict[str, str]:
    try:
        content = read_json(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold an object with the sha256 of each file")
    return content


def distinct_texts(table: CodeTable) -> list[str]:
    """Every text that may be asked for while training: training and validation texts, and channels; each once, in a fixed order."""
    channels = [text for name in CHANNELS for text in table.channels[name] if text]
    return list(
        dict.fromkeys(
            [*(t.text for t in table.split("train")), *(t.text for t in table.split("validation")), *channels]
        )
    )


class _Task:
    """What all objectives share: features of texts and channels, validation, weights."""

    def __init__(self, context: StageContext, config: CodesConfig):
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
        if self.domains and context.parent_dir is not None:
            self._measure_before()

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
        domains = np.array([self.table.domain(t) for t in self.validation])
        self.domains = (
            {name: np.flatnonzero(domains == name) for name in np.unique(domains)} if self.table.batches else {}
        )
        """Of data that continue others: the validation texts of each domain."""
        self.before: dict[str, float] = {}
        """Top-1 of the model before by domain."""

    def _open_model(self) -> None:
        """A fresh model, or the parent's; with adapters where this stage trains the encoder."""
        curriculum = self.config.curriculum
        self.space = load_model(self.config, self.table, self.device)
        self.model: nn.Module = self.space
        self.head, self.encoder = self.space.head, self.space.encoder
        self.live = curriculum.features == "live" and "encoder" in curriculum.trainable
        if self.context.parent_dir is not None:
            weights = read_checkpoint(self.context.parent_dir, self.config.model.encoder)
            carried = read_carried(self.context.data_dir)
            if carried and carried.fits(self.context.parent_dir, len(weights["head.table"]), self.tree):
                weights = carried.weights(weights, self.head, self.tree, self.config.seed)
            else:
                require_classification(self.context.parent_dir, self.tree)
            self.space.load_weights(weights)
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
        if "table" in self.groups and self._trains_points():
            self.groups["table"] = [self.head.put_on_manifold()]
        for parameters in self.groups.values():
            for parameter in parameters:
                parameter.requires_grad_(True)

    def _trains_points(self) -> bool:
        """Whether the table is trained as points of a manifold."""
        training = self.config.training
        return training.table_optimizer == "riemannian_adam" and self.config.curriculum.objective == "retrieval"

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Table and temperature learn ten times as fast as the encoder, the rest twice.

        AdamW moves each of a vector's numbers by about the learning rate, Riemannian Adam the whole point: there the rate is √dim times as large.
        """
        scale = {"encoder": 1.0, "table": 10.0, "temperature": 10.0}
        groups = [
            {"name": name, "params": parameters, "lr_scale": scale.get(name, 2.0)}
            | ({"weight_decay": 0.0} if name in ("table", "temperature", "radius") else {})
            for name, parameters in self.groups.items()
        ]
        for group in groups if self.head.points is not None else ():
            if group["name"] == "table":
                group |= {MANIFOLD: True, "lr_scale": scale["table"] * self.config.model.dim**0.5}
        return groups

    def _text_features(self, rows: np.ndarray) -> Tensor:
        """Features of distinct texts [n] → [n, width]; each text is encoded once however often it is asked for."""
        if self.features is not None and not self.live:
            return self.features[torch.from_numpy(rows)]
        unique, back = np.unique(rows, return_inverse=True)
        return self.encoder.encode(
            [self._thinned(tokens) for tokens in self._as_written(unique)], self.config.data_loader.token_budget
        )[torch.from_numpy(back).to(self.device)]

    def _as_written(self, rows: np.ndarray) -> list[list[int]]:
        """Tokens of distinct texts; in training, a random share of them is read as hasty people would have written it."""
        tokens, share = [self.tokens[i] for i in rows], self.config.curriculum.typos
        if not share or not self.model.training:
            return tokens
        chosen = [i for i, draw in enumerate(torch.rand(len(rows)).tolist()) if draw < share]
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        changed = [hasty(self.distinct[rows[i]], rng) for i in chosen]
        for i, read in zip(chosen, self.encoder.tokenize(changed, self.config.model.max_tokens), strict=True):
            tokens[i] = read
        return tokens

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
            leaves = torch.from_numpy(self.tree.leaves).to(self.device)
            distances = self.head.to_codes(direction, self.head.text_depth(len(direction)), leaves)
            scores = -distances.double().cpu().numpy()
            ranking = metrics.retrieval(scores, self.validation_target, self.tree)
            form = metrics.structure(self.head.between(), self.tree)
        measured = [form[name] for name in ("pearson", "ndcg@10", "edge_map") if name in form]
        shortfall = sum(max(0.0, STRUCTURE_FLOOR - value) for value in measured)
        loss = 1 - ranking["mrr"] + shortfall
        return {
            "val_loss": loss,
            **{f"val/{k}": v for k, v in ranking.items()},
            **{f"structure/{k}": v for k, v in form.items()},
            **self._by_domain(scores, loss),
        }

    def _measure_before(self) -> None:
        """Validate the model before in each domain."""
        self.model.eval()
        with torch.no_grad(), resolve_precision(self.config.training.trainer.precision, self.device).autocast():
            found = _Task.validate(self)
        self.before = {name: found[f"val/{name}/top1"] for name in self.domains}

    def _by_domain(self, scores: np.ndarray, loss: float) -> dict[str, float]:
        """Of data that continue others: figures of each domain, their change, and what picks the checkpoint (`forgetting.score`)."""
        if not self.domains:
            return {}
        found: dict[str, float] = {}
        after: dict[str, float] = {}
        for name, rows in self.domains.items():
            ranking = metrics.retrieval(scores[rows], self.validation_target[rows], self.tree)
            found |= {f"val/{name}/{measure}": ranking[measure] for measure in ("top1", "mrr", "hit@5")}
            after[name] = ranking["top1"]
        if not self.before and self.context.parent_dir is not None:
            return found  # the first time: of the model before
        return found | changes(self.before, after, "top1") | {SCORE: score(self.before, after, loss)}

    @torch.no_grad()
    def _place_hidden(self) -> None:
        """Codes hidden from training stand where their texts put them, as a code that is new tomorrow would."""
        codes = np.flatnonzero(self.table.cold)
        if len(codes):
            channels = self._channel_features(codes)
            with torch.autocast(self.device.type, enabled=False):
                self.head.table[codes] = self.head.by_text(*channels, self.head.depth[codes])
            self.head.read_table(codes)

    def weights(self) -> dict[str, Tensor]:
        """See `CodeSpace.weights`."""
        return self.space.weights()

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """See `CodeSpace.load_weights`."""
        self.space.load_weights(weights)

    def save_extras(self, folder: Path) -> None:
        """The tokenizer, and the adapters as peft writes them, so that transformers and peft alone can load the encoder; what its weights are.
        Where the table is trained as points of a manifold, also those, in float64."""
        if trained := self.space.trained_weights():
            save_file({n: t.detach().cpu().contiguous() for n, t in trained.items()}, folder / layout.TRAINED)
        self.encoder.tokenizer.save_pretrained(folder / "tokenizer")
        if self.encoder.adapted:
            self.encoder.model.save_pretrained(folder / ADAPTER)
        (folder / CLASSIFICATION).write_bytes(layout.write_record({"digest": classification_digest(self.tree)}))
        if digests := weight_digests(self.config.model.encoder):
            (folder / ENCODER).write_bytes(layout.write_record(digests))


@dataclass(frozen=True)
class TextBatch:
    """This rank's part of a batch: items (texts, then codes behind them), and rows of the table for the stress."""

    items: np.ndarray
    rows: np.ndarray
    size: int


class RetrievalTask(_Task):
    """Rank all codes for every labelled text; with `geometry`, nothing is trained."""

    def __init__(self, context: StageContext, config: CodesConfig):
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
        self.is_old = np.zeros(len(self.target), dtype=bool)
        self.is_old[: len(self.texts)] = [self.table.domain(t) == "old" for t in self.texts]
        self.cuts = torch.from_numpy(self.tree.cuts).to(self.device)
        self.rank = torch.from_numpy(self.tree.rank).to(self.device)
        if not len(self.target) and self.groups:
            raise DataError(
                f"stage {config.curriculum.name}: no training text of the kinds {', '.join(config.curriculum.texts)}"
            )
        ranked = torch.zeros(self.cuts.T.shape, dtype=torch.bool, device=self.device)
        for k, column in enumerate(self.cuts.T):
            ranked[k, column[column >= 0]] = True
        self.ranked = ranked & ~self.hidden
        """bool [L, N]: the codes that are ranked on each level; hidden ones are not."""

    def batches(self, epoch: int) -> list[TextBatch]:
        """Batches of like length out of shuffled chunks; every rank takes every W-th item."""
        rng = np.random.default_rng([self.config.seed, epoch])
        order = self._replayed(rng, rng.permutation(len(self.target)))
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

    def _replayed(self, rng: np.random.Generator, order: np.ndarray) -> np.ndarray:
        """The items [n] of an epoch without the old texts that it does not read again."""
        share = self.config.data.replay
        if not self.table.batches or share >= 1:
            return order
        old = np.flatnonzero(self.is_old[order])
        left_out = rng.choice(old, len(old) - round(share * len(old)), replace=False)
        return np.delete(order, left_out)

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
            own = self.rank[target]
            everyone = torch.arange(len(head.depth), device=self.device)
            distances = head.to_codes(head.direction(features), own, everyone)
            rank = losses.level_cross_entropy(
                head.logits(distances),
                self.cuts[target],
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
        self._count(batch.size, len(head.depth) - 1, distances, points.shape[1], hard=False)
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
        everyone = torch.arange(len(self.head.depth), device=self.device)
        return self.head.to_codes(
            self.head.direction(fused), self.head.depth[torch.from_numpy(codes).to(self.device)], everyone
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

    def __init__(self, context: StageContext, config: CodesConfig):
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
            depth = head.depth[torch.from_numpy(np.where(padding, 0, unique)).to(self.device)]
            radius, direction = head.radii()[depth - 1], head.direction(fused)
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
                self.head.table.copy_(self.head.by_text(*channels, self.head.depth))
        return super().validate()


def _first_of_each(codes: Tensor) -> Tensor:
    """Positions of the first occurrence of each code, paddings (-1) left out, in order of code."""
    unique, back = torch.unique(codes, return_inverse=True)
    first = torch.full((len(unique),), len(codes), device=codes.device).scatter_reduce(
        0, back, torch.arange(len(codes), device=codes.device), "amin"
    )
    return first[unique >= 0]
