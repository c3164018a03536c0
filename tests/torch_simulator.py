"""Drive the CUDA half of the PyTorch bridge in Numba's simulator, with host tensors as stand-ins.

``NUMBA_ENABLE_CUDASIM=1 python tests/torch_simulator.py``. What the simulator lacks (streams and
views of another library's memory) is replaced; everything between is what a card would run.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

if __name__ == "__main__":
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"

import numpy as np
import torch

import hsref
from hsref._cuda.compat import cuda
from hsref.interop import torch as bridge
from hsref.interop import torch_cuda
from hsref.interop._shared import Plan


class OnDevice(torch.Tensor):
    """A host tensor that says it lives on a card."""

    @property
    def is_cuda(self) -> bool:
        return True


@contextmanager
def no_stream(x):
    yield 0


def stand_in() -> None:
    torch_cuda._device = no_stream
    torch_cuda._view = lambda x, stream: cuda.to_device(x.detach().contiguous().numpy())
    torch_cuda._tensor = lambda array, x: torch.from_numpy(array.copy_to_host())


def main() -> int:
    stand_in()
    rng = np.random.default_rng(0)
    for C in (hsref.Simplex(3), hsref.Box(-0.5, 0.5, n=3)):
        for dtype in (np.float64, np.float32):
            x, g = (rng.normal(size=(4, 3)).astype(dtype) for _ in range(2))
            record = hsref.projection(x, C)
            keywords = {"selection": "active", "on_infeasible": "raise", "n_threads": None}
            y, J = torch_cuda.solve(torch.from_numpy(x), C, keywords)
            assert y.dtype == torch.from_numpy(x).dtype
            assert np.abs(y.numpy() - record.y).max() <= 1e-6
            value = torch_cuda.value(torch.from_numpy(x), C, keywords)
            assert torch.equal(value, y)
            wanted = record.jacobian() @ g
            plan = Plan(C.shape, True)
            t = torch.from_numpy(g)
            assert np.abs(torch_cuda.pull(J, t, plan)[0].numpy() - wanted).max() <= 1e-6
            assert np.abs(torch_cuda.push(J, (t,), plan).numpy() - wanted).max() <= 1e-6
            # several vectors a sample, as jacrev sends them
            many = torch_cuda.pull(J, torch.from_numpy(np.stack([g, 2 * g])), plan)[0]
            assert np.abs(many[1].numpy() - 2 * wanted).max() <= 1e-6
            # parameters live on the host, and so do their cotangents
            name = C._fields[0].name
            shape = C._fields[0].shape
            plan = Plan(C.shape, True, (name,), (shape,), (len(shape),))
            _, c = torch_cuda.pull(J, t, plan)
            found = hsref.vjp(x, C, wrt=(name,))[1](g)[name]
            assert np.abs(c.numpy() - found).max() <= 1e-6
            try:
                torch_cuda.push(J, (t, c), plan)
            except NotImplementedError as sentence:
                if name not in str(sentence):
                    raise
            else:
                raise AssertionError("forward mode in a parameter must be refused")
            # the dispatch: a tensor that says it is on the device takes this road
            call = bridge._Call(
                C, {**keywords, "device": None, "start": None, "degenerate_data": "raise"}, {}, ()
            )
            fake = torch.from_numpy(x).as_subclass(OnDevice)
            again, token = call.solve(fake, ())
            assert torch.equal(again, y)
            pulled = bridge.pull_tensors(
                bridge.redeem(token), t.as_subclass(OnDevice), Plan(C.shape, True)
            )
            assert np.abs(pulled[0].numpy() - wanted).max() <= 1e-6
    print("the device half of the bridge agrees with the host")
    return 0


if __name__ == "__main__":
    sys.exit(main())
