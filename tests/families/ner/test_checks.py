"""The 38 behavioural checks of the NER specification, each with the tests that hold it; what each file's tests mean stands there.

Stated exception (5): the training loop draws its batches anew each epoch, so `append` decides the file's order, not the sampler's.
"""

import ast
from pathlib import Path

import pytest

COMBINE, LAYOUTS, WINDOWS, START, FOLDER, TASK, FILES, JOB = (
    "test_combine",
    "test_layouts",
    "test_labels_windows_metrics",
    "../../steps/test_start",
    "test_checkpoint",
    "test_task",
    "test_config_files",
    "test_job",
)
CHECKS = {
    1: [(COMBINE, "test_new_only_takes_the_new_files_as_they_are")],
    2: [(COMBINE, "test_a_new_validation_set_is_split_off_where_there_is_none")],
    3: [(COMBINE, "test_combination_follows_from_the_seed_alone")],
    4: [(COMBINE, "test_combination_follows_from_the_seed_alone")],
    5: [(COMBINE, "test_append_keeps_the_order")],
    6: [(COMBINE, "test_validation_files_are_kept_and_an_unvalidated_domain_is_reported")],
    7: [(COMBINE, "test_validation_files_are_kept_and_an_unvalidated_domain_is_reported")],
    8: [(COMBINE, "test_a_dataset_with_itself_is_that_dataset")],
    9: [(COMBINE, "test_no_text_stands_in_train_and_validation_even_when_spelled_otherwise")],
    10: [(COMBINE, "test_postings_of_skillspan_stay_on_one_side")],
    11: [(COMBINE, "test_a_ratio_outside_zero_and_one_is_named")],
    12: [(COMBINE, "test_a_new_validation_set_is_split_off_where_there_is_none")],
    13: [(COMBINE, "test_an_unknown_strategy_and_missing_paths_are_named")],
    14: [(COMBINE, "test_an_unknown_strategy_and_missing_paths_are_named")],
    15: [(COMBINE, "test_an_unknown_strategy_and_missing_paths_are_named")],
    16: [
        (COMBINE, "test_damaged_files_are_named_with_record_and_nothing_is_written"),
        (COMBINE, "test_all_layouts_give_the_same_records"),
        (LAYOUTS, "test_datasets_of_any_layouts_are_combined"),
        (LAYOUTS, "test_the_layout_of_a_dataset_changes_nothing_in_what_is_trained"),
        (COMBINE, "test_damaged_conll_is_named_with_its_sentence"),
    ],
    17: [(COMBINE, "test_damaged_files_are_named_with_record_and_nothing_is_written")],
    18: [(COMBINE, "test_damaged_files_are_named_with_record_and_nothing_is_written")],
    19: [(COMBINE, "test_damaged_files_are_named_with_record_and_nothing_is_written")],
    20: [(WINDOWS, "test_a_span_that_cuts_a_word_covers_the_word_and_is_counted")],
    21: [
        (WINDOWS, "test_of_overlapping_spans_the_longest_stays"),
        (COMBINE, "test_overlapping_and_blank_records_are_named_by_their_number_in_the_file"),
        (WINDOWS, "test_real_annotations_survive_windows_of_64_tokens_but_for_those_that_are_counted"),
    ],
    22: [(TASK, "test_prepare_refuses_labels_that_the_configuration_does_not_name")],
    23: [(WINDOWS, "test_touching_entities_of_one_type_stay_two")],
    24: [(WINDOWS, "test_labels_keep_their_names_and_half_a_span_is_worth_nothing")],
    25: [(TASK, "test_padding_and_special_tokens_change_no_loss_and_two_ranks_make_one_batch")],
    26: [
        (WINDOWS, "test_long_texts_lose_no_entity"),
        (WINDOWS, "test_real_annotations_survive_windows_of_64_tokens_but_for_those_that_are_counted"),
    ],
    27: [
        (START, "test_the_environment_goes_before_the_config_and_the_config_before_the_cache"),
        (START, "test_a_source_that_is_set_and_invalid_is_an_error_that_names_it"),
    ],
    28: [(START, "test_patterns_are_filled_relative_to_the_config_folder_and_never_leave_it")],
    29: [(START, "test_patterns_are_filled_relative_to_the_config_folder_and_never_leave_it")],
    30: [(START, "test_each_fault_of_a_cache_file_has_its_reason")],
    31: [
        (FOLDER, "test_a_damaged_checkpoint_is_refused"),
        (FOLDER, "test_shards_adapters_and_trainer_folders_are_taken"),
    ],
    32: [
        (WINDOWS, "test_rows_are_matched_by_name_whatever_their_order"),
        (TASK, "test_continued_training_measures_the_old_domain_before_and_after_and_moves_rows_by_name"),
    ],
    33: [(TASK, "test_an_added_label_keeps_the_encoder_and_the_old_rows_and_a_dropped_one_is_reported")],
    34: [(TASK, "test_an_added_label_keeps_the_encoder_and_the_old_rows_and_a_dropped_one_is_reported")],
    35: [(FILES, "test_a_learning_rate_in_scientific_notation_is_a_number")],
    36: [(TASK, "test_continued_training_measures_the_old_domain_before_and_after_and_moves_rows_by_name")],
    37: [(JOB, "test_two_processes_are_one_training_that_counts_each_validation_record_once")],
    38: [
        (COMBINE, "test_running_twice_writes_the_same_bytes_and_leaves_nothing_stale"),
        (COMBINE, "test_combination_follows_from_the_seed_alone"),
        (TASK, "test_the_fingerprint_follows_the_data_and_not_its_place"),
    ],
}


@pytest.mark.parametrize("number", range(1, 39))
def test_each_check_has_its_test(number):
    for module, name in CHECKS[number]:
        tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
            f"check {number}: {module} holds no {name}"
        )
