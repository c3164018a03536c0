"""The promises of robustness, and for each the tests and the measurement that show it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Promise:
    """One line of the table: what is promised, and the tests and measurements that show it."""

    section: str
    text: str
    tests: tuple[str, ...] = ()
    measured: str = ""


def _p(section: str, text: str, *tests: str, measured: str = "") -> Promise:
    return Promise(section, text, tuple(f"tests/{one}" for one in tests), measured)


BENCHMARKS, FUZZ, PROCESSES = "Benchmarks", "Fuzz", "Threads and processes"
ENVIRONMENT, LIFE, SECURITY, BITS = "Environment", "Long life", "Security", "Determinism"

PROMISES = (
    _p(BENCHMARKS, "every time stands beside feasibility and gradient error against a certified "
       "reference", "test_benchmarks.py::test_reference_is_certified_and_light_peers_agree",
       "test_benchmarks.py::test_a_wrong_answer_is_seen", measured="run"),
    _p(BENCHMARKS, "exact step counts cannot move unseen",
       "test_benchmarks.py::test_gate_counts_repeat_and_a_change_is_named"),
    _p(FUZZ, "hostile problems are certified or refused; no crash, no hang, no silent wrong number",
       "test_benchmarks.py::test_fuzz_certifies_or_refuses_and_writes_its_tally", measured="fuzz"),
    _p(PROCESSES, "many Python threads call at once, also the first time",
       "test_threads.py::test_python_threads_at_once",
       "test_threads.py::test_first_use_in_two_threads_at_once"),
    _p(PROCESSES, "fork before use, after use and while another thread works; spawn",
       "test_threads.py::test_fork_after_use", "test_threads.py::test_fork_before_use",
       "test_threads.py::test_fork_while_another_thread_works",
       "test_threads.py::test_spawned_workers_give_the_same_bits"),
    _p(PROCESSES, "PyTorch's DataLoader workers (fork, spawn) and two DDP ranks",
       "test_interop_torch.py::test_workers_and_ranks_see_the_same_numbers"),
    _p(PROCESSES, "nested in workers of joblib and dask",
       "test_processes.py::test_nested_in_workers",
       "test_verify.py::test_a_dask_cluster_gives_the_same_bits",
       "test_verify.py::test_loky_gives_the_same_bits"),
    _p(PROCESSES, "Ctrl-C stops a long batch between chunks and leaves the library usable",
       "test_processes.py::test_an_interrupt_stops_between_chunks", measured="interrupts"),
    _p(PROCESSES, "no oversubscription: callers share one pool of helpers, no BLAS works beside it",
       "test_processes.py::test_calls_share_one_pool_and_none_is_made_for_one_thread",
       "test_threads.py::test_the_number_of_threads_comes_from_the_environment"),
    _p(ENVIRONMENT, "read-only installation and home: one warning, the right answer",
       "test_environment.py::test_without_any_writable_folder_one_warning_and_the_right_answer",
       "test_environment.py::test_a_cache_folder_that_is_named_is_used",
       "test_environment.py::test_a_writable_home_is_used",
       "test_threads.py::test_no_writable_folder_warns_once_and_works"),
    _p(ENVIRONMENT, "a full disk costs a warning",
       "test_caching.py::test_a_full_disk_costs_a_warning"),
    _p(ENVIRONMENT, "damaged files of the compiler's cache are compiled again",
       "test_caching.py::test_no_damaged_file_is_read",
       "test_caching.py::test_damaged_files_are_compiled_again_and_mended",
       "test_caching.py::test_an_intact_file_is_used_and_another_function_s_is_not",
       measured="damage"),
    _p(ENVIRONMENT, "processes that compile at once into one empty cache",
       "test_caching.py::test_two_processes_fill_one_empty_folder", measured="race"),
    _p(ENVIRONMENT, "a missing optional package gives the sentence with the extra to install",
       "test_environment.py::test_an_application_names_its_extra",
       "test_environment.py::test_prices_of_ones_own_name_the_extra",
       "test_environment.py::test_a_bridge_names_its_extra",
       "test_environment.py::test_a_device_names_its_extras",
       "test_environment.py::test_an_executor_names_its_package",
       "test_environment.py::test_a_report_without_pictures_says_why",
       "test_environment.py::test_the_core_needs_no_extra"),
    _p(ENVIRONMENT, "oldest and newest supported releases, every Python at hand",
       "test_packaging.py::test_classifiers_name_only_versions_that_ran", measured="versions"),
    _p(LIFE, "a million calls, forward and backward, without growth of memory",
       "test_benchmarks.py::test_calls_do_not_grow_the_process", measured="memory"),
    _p(LIFE, "every set, record and Jacobian pickles, copies and hashes",
       "test_sets.py::test_immutable_picklable_printable",
       "test_sets.py::test_records_and_jacobians_travel", "test_record.py"),
    _p(LIFE, "files are written whole or not at all",
       "test_source.py::test_every_file_is_written_beside_its_target_and_renamed",
       "test_processes.py::test_a_kill_at_any_moment_leaves_whole_files",
       "test_portfolio.py::test_an_interrupted_write_leaves_the_old_file", measured="kills"),
    _p(LIFE, "an interrupted or killed training or verification resumes with nothing lost",
       "test_checkpoint.py", "test_processes.py::test_a_verification_that_was_killed_goes_on",
       "test_verify.py::test_an_interrupted_run_goes_on",
       "test_verify.py::test_processes_give_the_same_bits_also_after_an_interrupt",
       "test_verify.py::test_what_a_crash_damaged_is_done_again",
       "test_hyper_connections.py::test_a_run_that_was_interrupted_ends_with_the_same_bits",
       "test_matching.py::test_numbers_depend_on_the_seed_alone_and_survive_an_interruption"),
    _p(SECURITY, "no pickles of users' files, no eval, no shell",
       "test_source.py::test_nothing_runs_what_a_file_says", "test_source.py::test_the_check_sees",
       "test_checkpoint.py::test_no_pickle_is_ever_loaded",
       "test_theory.py::test_reports_are_frozen_and_saved_without_pickle"),
    _p(SECURITY, "`--prices` and result folders handle odd paths", "test_cli.py::test_odd_paths",
       "test_verify.py::test_odd_folders", "test_cli.py::test_bad_input_ends_in_one_sentence",
       "test_portfolio_data.py::test_a_file_that_is_none_gets_one_sentence"),
    _p(BITS, "the same bits alone, in a batch, on any number of threads, in a spawned process; "
       "every set, both precisions",
       "test_threads.py::test_every_set_gives_the_same_bits_everywhere",
       "test_threads.py::test_alone_in_a_batch_and_on_any_number_of_threads"),
    _p(BITS, "the same bits from the process that compiles, the next, and one without a cache",
       "test_linking.py"),
)  # fmt: skip
