"""Streams windows through a model and gathers what flows through it, going on behind what is finished."""

from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.api.jobs import Saved
from engine.api.progress import Progress
from engine.calibration.array_files import write_arrays
from engine.calibration.flows import BlockTally, FlowWatcher, kept_heads
from engine.calibration.results import merged, told
from engine.calibration.stored_sums import CountedStates
from engine.calibration.stored_tallies import Finished, StoredTallies
from engine.capture_preparation import Capture
from engine.jobs.running import Running
from engine.states import Saver
from engine.streaming import stream


class Capturing:
    """One run of a job."""

    def __init__(self, work: Running, prepared: Capture) -> None:
        self._work, self._prepared = work, prepared
        self._saver = Saver(work, prepared.unchanged)
        self._tallies = StoredTallies(
            self._saver, prepared.kind, prepared.blocks, len(prepared.batches), self._fresh, self._finish
        )
        self._watcher: FlowWatcher | None = None
        self._tally: BlockTally | None = None

    def run(self, output: Path, *, overwrite: bool) -> tuple[int, int]:
        """Gather, and write the file: its bytes, and how many layers it tells of."""
        prepared = self._prepared
        torch.set_num_threads(prepared.threads)
        with self._states() as states:
            self._done = sum(
                batch.windows * max(0, states.step(number)) for number, batch in enumerate(prepared.batches)
            )
            wanted = range(len(prepared.batches))
            stream(prepared.subject.model, prepared.tokens, states, wanted, self._passed, self._watch)
            states.commit()
        prepared.unchanged.check()
        with ExitStack() as stack:
            parts = [stack.enter_context(self._tallies.finished(part)) for part in range(prepared.blocks)]
            about, arrays = merged(prepared.ran, parts)
            self._warn_of_unseen([tensor for layer in about.layers for tensor in layer.tensors])
            size = write_arrays(output, about.model_dump_json(), arrays, overwrite=overwrite)
        return size, sum(len(layer.tensors) for layer in about.layers)

    def _states(self) -> "_WatchedStates":
        model = self._prepared.subject.model
        return _WatchedStates(
            self,
            self._tallies,
            lambda part, batch: self._tally,
            self._saver,
            f"{self._prepared.kind}/model",
            "hidden model",
            shape=(self._prepared.tokens.shape[1], model.width),
            batches=[batch.windows for batch in self._prepared.batches],
            wanted=range(len(self._prepared.batches)),
            blocks=model.block_count,
            saved=lambda blocks: Saved(done=blocks, total=model.block_count, unit="blocks"),
        )

    def begin(self, part: int, batch: int) -> None:
        """The batch goes through the block next."""
        if self._watcher is not None:
            lacks = batch >= self._tallies.batches(part)
            self._watcher.begin(self._prepared.batches[batch] if lacks else None)

    def _watch(self, part: int, module: nn.Module) -> AbstractContextManager[Any]:
        """Look at what flows through a block, unless all of it is told already."""
        if self._tallies.batches(part) == len(self._prepared.batches):
            self._watcher = self._tally = None
            return nullcontext()
        self._tally = self._tallies.tally(part)
        self._watcher = FlowWatcher(module, self._tally, kept_heads(self._prepared.subject.model.config))
        return self._watcher

    def _fresh(self, part: int) -> BlockTally:
        return BlockTally(self._prepared.targets[part], self._prepared.room, self._prepared.ran.seed)

    def _finish(self, part: int, tally: BlockTally) -> Finished:
        tokenizer, tokens = self._prepared.subject.tokenizer, self._prepared.tokens
        whole = self._prepared.whole
        return told(part, tally, lambda window, at: tokenizer.text_of(int(tokens[window, at])), whole=whole)

    def _warn_of_unseen(self, seen: list[str]) -> None:
        names = {target.name for targets in self._prepared.targets for target in targets}
        if unseen := sorted(names - set(seen)):
            self._work.warn(
                f"It cannot be seen what reaches {unseen[0]}"
                f"{f' and {len(unseen) - 1} others' if len(unseen) > 1 else ''} in this architecture."
            )

    def _passed(self, part: int, windows: int) -> None:
        self._done += windows
        total = len(self._prepared.tokens) * self._prepared.blocks
        name = f"block {part + 1} of {self._prepared.blocks}"
        self._work.listener(Progress("activations", self._done, total, "passes", name))


class _WatchedStates(CountedStates):
    """Tells `capturing` which batch goes through a block next: that whose states are asked for."""

    def __init__(self, capturing: Capturing, *arguments: Any, **named: Any) -> None:
        self._capturing = capturing
        super().__init__(*arguments, **named)

    def get(self, batch: int) -> torch.Tensor:
        self._capturing.begin(self.step(batch), batch)
        return super().get(batch)
