"""One process or many: under torchrun the processes share the minibatches and average their gradients."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


class Processes:
    """The processes that learn together, one unless torchrun says otherwise.

    Attributes:
        rank: This process's number.
        count: Of all.
        device: A GPU where there is one, else the CPU.
    """

    def __init__(self) -> None:
        self.rank, self.count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        local = int(os.environ.get("LOCAL_RANK", "0"))
        self.device = torch.device("cuda", local % gpus) if gpus else torch.device("cpu")
        if self.count > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if gpus >= self.count else "gloo")

    @property
    def main(self) -> bool:
        """Whether this process keeps checkpoints and results."""
        return self.rank == 0

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's values."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), 0)

    def agree(self, number: float) -> float:
        """The first process's number."""
        if self.count == 1:
            return number
        held = torch.tensor([number], dtype=torch.float64, device=self.device)
        dist.broadcast(held, 0)
        return float(held.item())

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its mean over the processes, in one message."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].reshape(gradient.shape))
            start += gradient.numel()

    def close(self) -> None:
        """Wait for all and leave."""
        if self.count > 1 and dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()
