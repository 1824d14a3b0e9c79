"""Do many independent pieces of work in processes of their own, each with one thread.

What is computed does not depend on the number of processes: every piece runs single-threaded wherever it runs. The
processes start at first use, serve until the pool is closed, and end by themselves once the one that started them is
gone. Functions and arguments may be defined in a notebook.

    >>> with Pool(2) as pool:                                                 # doctest: +SKIP
    ...     networks = pool.map(train_one, [(seed,) for seed in range(3)])
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Self

from threadpoolctl import threadpool_limits

from papertwin.errors import InputError, RunError
from papertwin.training.device import pick_device, set_threads, thread_count
from papertwin.training.loop import single_thread

WATCH = 1.0  # seconds between two looks of a process at the one that started it
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


class Pool:
    """Processes that work; use it in a `with` block, or close it."""

    def __init__(self, processes: int | None = None):
        """Prepare `processes` of them, one a core when None; with 1 the work is done in this process.

        Raises:
            InputError: `processes` is no whole number above 0.
        """
        if processes is not None and (isinstance(processes, bool) or not isinstance(processes, int) or processes < 1):
            raise InputError(f"processes must be a whole number of at least 1, got {processes!r}.")
        self.processes = thread_count() if processes is None else processes
        self._executor: Any = None

    @classmethod
    def on(cls, device: Any, processes: int = 0) -> Self:
        """Prepare processes for trainings on a device: 0 for one a core, and just one where an accelerator trains."""
        return cls((processes or None) if pick_device(device).type == "cpu" else 1)

    def __enter__(self) -> Self:
        """Nothing starts before the first piece of work."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        self.close()

    def close(self) -> None:
        """End the processes; what has not been finished is dropped."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, kill_workers=True)
            self._executor = None

    def map(
        self, function: Callable, tasks: Sequence[tuple], progress: Callable[[int, int], None] | None = None
    ) -> list[Any]:
        """Call `function(*task)` for every task; return the results in the order of the tasks.

        Args:
            function: what to do; its result must be picklable.
            tasks: arguments of each call.
            progress: called after each with the number that is done and the number of all.

        Raises:
            RunError: a process died, for lack of memory for instance.
        """
        results: list[Any] = [None] * len(tasks)
        for done, (index, result) in enumerate(self.completed(function, tasks), 1):
            results[index] = result
            if progress is not None:
                progress(done, len(tasks))
        return results

    def completed(self, function: Callable, tasks: Sequence[tuple]) -> Iterator[tuple[int, Any]]:
        """Yield (number of the task, result) as they are done; arguments and errors as in `map`."""
        if self.processes == 1 or len(tasks) < 2:
            for index, task in enumerate(tasks):
                yield index, _alone(function, task)
            return
        if self._executor is None:
            from loky import ProcessPoolExecutor

            self._executor = ProcessPoolExecutor(
                self.processes, initializer=_begin, initargs=(os.getpid(),), env=ONE_THREAD
            )
        try:
            waiting = {self._executor.submit(_alone, function, task): index for index, task in enumerate(tasks)}
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BrokenProcessPool as error:
            self._executor = None
            raise RunError(
                f"A process ended early, often for lack of memory. Use fewer processes (now {self.processes}); what "
                "was stored on the way is kept."
            ) from error
        except BaseException:  # refused, or interrupted: what has been handed out is of no use any more
            self.close()
            raise


def _alone(function: Callable, task: tuple) -> Any:
    """Body of a process: one task, with one thread of torch, BLAS and OpenMP."""
    with single_thread(), threadpool_limits(1):
        return function(*task)


def _begin(parent: int) -> None:
    """First thing in a process: one thread, and an eye on the process that waits for the results."""
    set_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process once the one that started it is gone, killed for instance: nothing else would."""
    import psutil

    try:
        process = psutil.Process(parent)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(WATCH)
    except psutil.NoSuchProcess:
        pass
    os._exit(1)
