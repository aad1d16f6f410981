"""The table of attention kernels: a new one is a file beside this and a line in `KERNELS`."""

from lvt_ff.kernels.base import Kernel
from lvt_ff.kernels.relu import ReluKernel
from lvt_ff.kernels.softmax import SoftmaxKernel

__all__ = ["KERNELS", "Kernel"]

KERNELS: dict[str, type[Kernel]] = {
    "relu": ReluKernel,
    "softmax": SoftmaxKernel,
}
