"""The replacement of a module's `forward`: fastgru where it gives the same results, else PyTorch's own."""

import copy
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence

from fastgru.torch import _operator
from fastgru.torch._sequences import ARGUMENTS, run_packed
from fastgru.torch._weights import DTYPES, TYPES, Packed, Sizes, Unfit

_is_compiling = torch.compiler.is_compiling
_is_grad_enabled = torch.is_grad_enabled
_autocasts = torch._C._is_any_autocast_enabled
_tracing_state = torch._C._get_tracing_state
_functorch_level = torch._C._functorch.peek_interpreter_stack
_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes = torch._C._len_torch_function_stack

OBSERVED = "something of PyTorch observes or replaces its operators"
GRADIENT = "a gradient is wanted"
DROPOUT = "its dropout is active"
COMPUTED = "its weights are computed from others, or replaced for a call"
CELL_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class Forward:
    """The `forward` of one module, and what else of a module must not know of it.

    It lies in the module's `__dict__`, so that the module keeps its class, and holds no reference to it.

    Parameters
    ----------
    module : torch.nn.Module

    Attributes
    ----------
    weights_dtype : str or None
        As of `fastgru.GRU`.
    threads : int
        Of a call, at most; 0: those of the process.
    reason : str or None
        Why PyTorch computed the last call that fastgru did not.
    """

    def __init__(self, module: Any) -> None:
        self.reference = weakref.ref(module)
        self.attached = False
        self.renew(None, 0)

    def renew(self, weights_dtype: str | None, threads: int) -> None:
        """Have weights read anew, for calls that compute with this type of them on this many threads."""
        self.weights_dtype, self.threads = weights_dtype, threads
        self.packed: Packed | None = None
        self.reason: str | None = None

    @property
    def module(self) -> Any:
        module = self.reference()
        if module is None:
            raise ReferenceError("the module of this forward is gone: keep the module, not its forward alone")
        return module

    # ---- into and out of a module ------------------------------------------------------------

    @property
    def attributes(self) -> dict[str, Any]:
        """What lies in the module's `__dict__`."""
        return {
            "forward": self,
            "__reduce_ex__": self.reduced,
            "__prepare_scriptable__": self.ordinary,
            "_replicate_for_data_parallel": self.replicated,
        }

    def attach(self) -> None:
        self.attached = True
        self.module.__dict__.update(self.attributes)

    def detach(self) -> None:
        """Take it out of the module; what has replaced `forward` since stays, and calls PyTorch's."""
        self.attached, self.packed = False, None
        own = self.module.__dict__
        for name in own.keys() - self._without_ours(own).keys():
            del own[name]

    def reduced(self, protocol: Any) -> tuple[Any, ...]:
        """The module's `__reduce_ex__`, for pickles and copies: an ordinary module."""
        module = self.module
        reduce: Any = type(module).__reduce_ex__
        rebuild, arguments, state, *rest = reduce(module, protocol)
        return rebuild, arguments, self._without_ours(state), *rest

    def ordinary(self) -> Any:
        """The module's `__prepare_scriptable__`: PyTorch's forward is put back, which compiles."""
        self.detach()
        return self.module

    def replicated(self) -> Any:
        """The module's `_replicate_for_data_parallel`: an ordinary module on another device."""
        module = self.module
        replica = type(module)._replicate_for_data_parallel(module)
        replica.__dict__ = self._without_ours(replica.__dict__)
        return replica

    def _without_ours(self, state: Mapping[str, Any]) -> dict[str, Any]:
        ours = self.attributes
        return {
            name: value
            for name, value in state.items()
            if name not in ours or (name == "forward" and value is not self)
        }

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """For what copies a module's `__dict__` item by item, as parametrized modules do."""
        made = type(self)(copy.deepcopy(self.module, memo))
        made.renew(self.weights_dtype, self.threads)
        made.attached = self.attached
        return made

    def __reduce__(self) -> Any:
        """For what pickles a module's `forward` by itself: PyTorch's, of the module that is read."""
        return getattr, (self.module, "forward")

    # ---- calls -------------------------------------------------------------------------------

    def __call__(self, input: Any, hx: Any = None) -> Any:  # noqa: A002 - as PyTorch names it
        module = self.reference()
        if module is None:
            module = self.module  # raises
        if not self.attached:
            return type(module).forward(module, input, hx)
        if _is_compiling():
            return self.compiled(module, input, hx)
        try:
            if (  # something has to see, or changes, what PyTorch's own operators do
                _autocasts()
                or _tracing_state() is not None
                or _functorch_level() is not None
                or _dispatch_modes()
                or _function_modes()  # such as a default device
                or forward_ad._current_level >= 0
            ):
                raise Unfit(OBSERVED)
            if _is_grad_enabled():
                self.check_gradient(module, input, hx)
            result = self.computed(module, input, hx)
            if result is not NotImplemented:
                return result
            self.reason = ARGUMENTS
        except Unfit as error:
            self.reason = str(error)
        return type(module).forward(module, input, hx)

    def compiled(self, module: Any, inputs: Any, hx: Any) -> Any:
        """The call, while PyTorch traces it for a compiler or for export."""
        raise NotImplementedError

    def computed(self, module: Any, inputs: Any, hx: Any) -> Any:
        """What the call returns; `Unfit` or NotImplemented if it is PyTorch's to compute."""
        raise NotImplementedError

    def weights(self, module: Any) -> tuple[dict[str, Any], Sizes]:
        """The module's weights as they are now; raises `Unfit` if these are not its parameters."""
        raise NotImplementedError

    def packed_anew(self, module: Any, inputs: Any) -> Packed:
        """Weights that have changed, for an input that may be fastgru's to compute with."""
        self.packed = None  # its memory is given back before the next ones take theirs
        data = inputs.data if type(inputs) is PackedSequence else inputs
        if type(data) not in TYPES or data.dtype not in DTYPES or not data.is_cpu:  # nor are the weights then
            raise Unfit(ARGUMENTS)
        self.packed = packed = Packed(*self.weights(module), self.weights_dtype, self.threads)
        return packed

    def check_gradient(self, module: Any, inputs: Any, hx: Any) -> None:
        """Raise `Unfit` if a gradient is wanted."""
        data = inputs.data if type(inputs) is PackedSequence else inputs
        for tensor in (*module._parameters.values(), data, hx):
            if getattr(tensor, "requires_grad", False):
                self.packed = None  # weights are about to be changed, perhaps by ways that are not seen
                raise Unfit(GRADIENT)


def forward_of(module: Any) -> Forward | None:
    """What `optimize` has put into a module, even if something has replaced its forward since."""
    forward = getattr(module.__dict__.get("__reduce_ex__"), "__self__", None)
    return forward if isinstance(forward, Forward) else None


class GRUForward(Forward):
    """Of a `torch.nn.GRU`."""

    def weights(self, module: Any) -> tuple[dict[str, Any], Sizes]:
        own = {name: module._parameters.get(name) for name in module._flat_weights_names}
        if any(a is None or a is not b for a, b in zip(own.values(), module._flat_weights, strict=True)):
            raise Unfit(COMPUTED)
        directions = 2 if module.bidirectional else 1
        return own, Sizes(module.input_size, module.hidden_size, module.num_layers, directions, module.bias)

    def computed(self, module: Any, inputs: Any, hx: Any) -> Any:
        if module.dropout and drops(module):
            raise Unfit(DROPOUT)
        packed = self.packed
        if packed is None or not packed.is_of(module._parameters, module._flat_weights):
            packed = self.packed_anew(module, inputs)
        if type(inputs) is not PackedSequence:
            return packed.run(inputs, hx, module.batch_first)
        data, sizes, order, back = inputs
        if hx is not None:
            hx = module.permute_hidden(hx, order)
        output, h_n = run_packed(packed, data, sizes, hx)
        return PackedSequence(output, sizes, order, back), module.permute_hidden(h_n, back)

    def compiled(self, module: Any, inputs: Any, hx: Any) -> Any:
        weights = [getattr(module, name) for name in module._flat_weights_names]
        if (
            drops(module)
            or not _operator.fits(inputs, hx, weights)
            or inputs.dim() not in (2, 3)
            or (hx is not None and hx.dim() != inputs.dim())
        ):
            return type(module).forward(module, inputs, hx)
        batch_axis = 0 if module.batch_first else 1
        single = inputs.dim() == 2
        if single:
            inputs = inputs.unsqueeze(batch_axis)
            hx = None if hx is None else hx.unsqueeze(1)
        module.check_input(inputs, None)
        if hx is not None:
            module.check_hidden_size(hx, module.get_expected_hidden_size(inputs, None))
        output, h_n = _operator.gru(
            inputs,
            hx,
            weights,
            module.bias,
            module.num_layers,
            module.bidirectional,
            module.batch_first,
            self.weights_dtype,
        )
        return (output.squeeze(batch_axis), h_n.squeeze(1)) if single else (output, h_n)


def drops(module: Any) -> bool:
    """True if a call of a GRU drops out, which it does between levels."""
    return bool(module.dropout and module.training and module.num_layers > 1)


class CellForward(Forward):
    """Of a `torch.nn.GRUCell`."""

    def weights(self, module: Any) -> tuple[dict[str, Any], Sizes]:
        names = CELL_WEIGHTS if module.bias else CELL_WEIGHTS[:2]
        own = {name: module._parameters.get(name) for name in names}
        if any(weight is None for weight in own.values()):
            raise Unfit(COMPUTED)
        return own, Sizes(module.input_size, module.hidden_size, 1, 1, module.bias)

    def computed(self, module: Any, inputs: Any, hx: Any) -> Any:
        packed, own = self.packed, module._parameters
        if packed is None or not packed.is_of(own, None):
            packed = self.packed_anew(module, inputs)
        return packed.run_cell(inputs, hx)

    def compiled(self, module: Any, inputs: Any, hx: Any) -> Any:
        weights = [getattr(module, name) for name in (CELL_WEIGHTS if module.bias else CELL_WEIGHTS[:2])]
        if (
            not _operator.fits(inputs, hx, weights)
            or inputs.dim() not in (1, 2)
            or inputs.shape[-1] != module.input_size
            or (hx is not None and hx.shape != (*inputs.shape[:-1], module.hidden_size))
        ):
            return type(module).forward(module, inputs, hx)
        return _operator.gru_cell(inputs, hx, weights, self.weights_dtype)
