"""The continued training guide's words for settings of `NerConfig`: tables only."""

from __future__ import annotations

from curricle.config.experiment import ExperimentWords

WORDS = ExperimentWords(
    new_data="data.new_dataset_path",
    old_data="data.old_dataset_path",
    old_only_measured=("data.strategy", "new_only"),
    training={
        "training.epochs": "training.trainer.max_epochs",
        "training.batch_size": "data_loader.batch_size",
        "training.dropout": "model.dropout",
        "training.max_grad_norm": "training.trainer.gradient_clip_val",
        "training.random_seed": "seed",
        "training.gradient_accumulation_steps": "training.trainer.accumulate_grad_batches",
    },
    model={
        "backbone": "model.encoder",
        "preprocessing.max_length": "model.max_tokens",
        "preprocessing.sequence_length": "model.max_tokens",
        "preprocessing.stride": "model.stride",
    },
    unused={
        "data file": ("name", "version", "description", "seed", "splitting", "schema"),
        "model file": (
            "tokenizer",
            "preprocessing.tokenization",
            "preprocessing.replace_rare_with_unk",
            "preprocessing.unk_frequency_threshold",
            "preprocessing.keep_stopwords",
            "decoding",
            "loss",
        ),
        "training file": (
            "training.val_split_divisor",
            "training.deberta_max_batch_size",
            "training.warmup_steps_divisor",
            "training.metric",
            "training.metric_mode",
            "training.use_all_data",
            "logging",
            "distributed",
            "output",
            "mlflow",
        ),
        "search file": ("selection", "k_fold", "checkpoint", "mlflow", "refit", "objective.direction"),
        "benchmark file": ("benchmarking.device", "benchmarking.test_data", "output.save_summary"),
    },
    only_describing=("name", "version", "description", "seed", "schema"),
    hyperparameters={
        "backbone": "model.encoder",
        "learning_rate": "training.learning_rate",
        "weight_decay": "training.weight_decay",
        "batch_size": "data_loader.batch_size",
        "epochs": "training.trainer.max_epochs",
        "dropout": "model.dropout",
        "random_seed": "seed",
        "strategy": "data.strategy",
    },
)
