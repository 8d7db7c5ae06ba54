# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: cdivision=True, autotestdict=False, embedsignature=False, freethreading_compatible=True
"""Networks on the tensors of PyTorch, whose memory is read and written in place, by its address.

Knows tensors by their methods alone, so that it is built without PyTorch.
"""

from cpython.mem cimport PyMem_RawFree
from libc.string cimport memcmp, memcpy

cimport cython

from fastgru._atomics cimport exchange
from fastgru._core cimport Network, prepared, run_network
from fastgru._engine cimport fastgru_run_of
from fastgru._memory cimport Memory, allocated

cdef enum:
    SAMPLES = 8                                         # of each weight


cdef struct Mark:
    # A weight as it was when it was packed.
    size_t address
    Py_ssize_t version                                  # -1: PyTorch counts none
    size_t itemsize
    int count
    Py_ssize_t places[SAMPLES]                          # of elements, in bytes from the address, and
    char values[SAMPLES][8]                             # what they were


cdef struct Place:
    # A tensor's memory.
    char *data
    int axes
    Py_ssize_t sizes[3]
    Py_ssize_t strides[3]                               # in elements


cdef struct Ready:
    # A described run of some rows and timesteps, and its scratch memory.
    Memory *memory
    fastgru_run_of run


@cython.auto_pickle(False)
cdef class TensorCalls:
    """Calls on the weights of one module, and whether these are still what has been packed.

    Parameters
    ----------
    names : tuple of str
        Of the weights.
    tensors : tuple of Tensor
        The weights, strided and on the CPU.
    width : int
        Of the output.
    types : tuple of type
        Of plain tensors.
    """

    cdef tuple names, tensors, kept
    cdef Mark *marks
    cdef object tensor, parameter                       # the types of plain ones
    cdef object dtype                                   # of their elements
    cdef Py_ssize_t width, itemsize
    cdef Network network
    cdef Ready *spare                                   # of a call before, for the next one

    def __init__(self, tuple names, tuple tensors, Py_ssize_t width, tuple types):
        cdef Py_ssize_t i, k
        cdef Mark *mark
        if self.marks != NULL:
            raise RuntimeError("__init__ must be called once")
        cdef Py_ssize_t itemsize = tensors[0].itemsize
        self.names, self.tensors, self.width, self.itemsize = names, tensors, width, itemsize
        self.tensor, self.parameter = types
        self.dtype = tensors[0].dtype
        kept = []
        for tensor in tensors:  # no comprehension: when it fails, its tensors are given up twice
            kept.append(tensor.detach())
        self.kept = tuple(kept)  # their memory is not given to others, so an address says which it is
        self.marks = <Mark *> allocated(len(tensors) * sizeof(Mark))
        for i in range(len(tensors)):
            mark = &self.marks[i]
            mark.address = tensors[i].data_ptr()
            mark.version = -1 if tensors[i].is_inference() else tensors[i]._version
            mark.itemsize, mark.count = itemsize, min(SAMPLES, tensors[i].numel())
            for k in range(mark.count):
                mark.places[k] = itemsize * place_of(
                    (k + 1) * tensors[i].numel() // (SAMPLES + 1), tensors[i].shape, tensors[i].stride())
                memcpy(&mark.values[k][0], <char *> mark.address + mark.places[k], itemsize)

    def __dealloc__(self):
        PyMem_RawFree(self.marks)
        free_ready(self.spare)

    def _run_on(self, Network network not None):
        """Have calls run a time-major network of one output, without conversions."""
        self.network = network

    def is_of(self, parameters, flat):
        """True if these are a module's weights, and nobody has written to them.

        PyTorch counts what is written to a tensor, but not what is written to its `data`, or to a tensor that
        was made in inference mode: of that is seen what changes one of a few elements.

        Parameters
        ----------
        parameters : mapping of str to Tensor
            The module's own.
        flat : list of Tensor or None
            What PyTorch computes with, where it is in a list of its own.
        """
        cdef Py_ssize_t i, k
        cdef Mark *mark
        cdef object tensor
        if flat is not None and len(<list> flat) != len(self.tensors):
            return False
        for i in range(len(self.tensors)):
            mark, tensor = &self.marks[i], self.tensors[i]
            if (
                parameters.get(self.names[i]) is not tensor
                or (flat is not None and (<list> flat)[i] is not tensor)
                or <size_t> tensor.data_ptr() != mark.address
                or (mark.version >= 0 and <Py_ssize_t> tensor._version != mark.version)
            ):
                return False
            for k in range(mark.count):
                if memcmp(&mark.values[k][0], <char *> mark.address + mark.places[k], mark.itemsize):
                    return False
        return True

    def run(self, inputs, hx, bint batch_first):
        """What a GRU returns for tensors; NotImplemented: PyTorch is to say why not.

        Parameters
        ----------
        inputs : Tensor, shape (timesteps, batch, features) or (timesteps, features)
            With `batch_first` the first two of three swapped.
        hx : Tensor, shape (states, batch, units), or None
            Without the batch if the input has none.
        batch_first : bool

        Returns
        -------
        tuple of two Tensors
            The output, of all timesteps, with the strides that PyTorch gives it: those of a time-major
            tensor. The last states, of the shape of `hx`.
        """
        cdef Place x, h
        cdef int axes, time_axis = 0
        cdef Py_ssize_t batch = 1, states = self.network.net.state_count, units = self.network.states.units[0]
        cdef object output, last, new
        inputs = placed(self, inputs, &x, False)
        if inputs is None:
            return NotImplemented
        axes = x.axes
        if axes == 3:
            time_axis = batch_first
            batch = x.sizes[1 - time_axis]
        elif axes != 2:
            return NotImplemented
        if x.sizes[axes - 1] != self.network.features:
            return NotImplemented
        if hx is not None:
            hx = placed(self, hx, &h, True)
            if (
                hx is None or h.axes != axes or h.sizes[0] != states or h.sizes[axes - 1] != units
                or (axes == 3 and h.sizes[1] != batch)
            ):
                return NotImplemented
        new = inputs.new_empty
        if axes == 3:
            output, last = new(x.sizes[time_axis], batch, self.width), new(states, batch, units)
            self.execute(
                batch, x.sizes[time_axis], &x, x.strides[1 - time_axis], x.strides[time_axis],
                <char *> <size_t> output.data_ptr(), &h if hx is not None else NULL,
                <char *> <size_t> last.data_ptr())
            return (output.transpose(0, 1) if batch_first else output), last
        output, last = new(x.sizes[0], self.width), new(states, units)
        self.execute(
            1, x.sizes[0], &x, 0, x.strides[0], <char *> <size_t> output.data_ptr(),
            &h if hx is not None else NULL, <char *> <size_t> last.data_ptr())
        return output, last

    def run_cell(self, inputs, hx):
        """What a GRUCell returns for tensors; NotImplemented: PyTorch is to say why not.

        Parameters
        ----------
        inputs : Tensor, shape (batch, features) or (features,)
        hx : Tensor, shape (batch, units), or None
            Without the batch if the input has none.

        Returns
        -------
        Tensor, shape (batch, units) or (units,)
        """
        cdef Place x, h
        cdef int axes
        cdef Py_ssize_t batch, units = self.width
        cdef object output
        inputs = placed(self, inputs, &x, False)
        if inputs is None:
            return NotImplemented
        axes = x.axes
        if axes == 3 or x.sizes[axes - 1] != self.network.features:
            return NotImplemented
        batch = x.sizes[0] if axes == 2 else 1
        if hx is not None:
            hx = placed(self, hx, &h, True)
            if hx is None or h.axes != axes or h.sizes[axes - 1] != units or (axes == 2 and h.sizes[0] != batch):
                return NotImplemented
        output = inputs.new_empty(batch, units) if axes == 2 else inputs.new_empty(units)
        self.execute(
            batch, 1, &x, x.strides[0] if axes == 2 else 0, 0, <char *> <size_t> output.data_ptr(),
            &h if hx is not None else NULL, NULL)
        return output

    cdef int execute(
        self, Py_ssize_t batch, Py_ssize_t timesteps, Place *x, Py_ssize_t batch_stride, Py_ssize_t time_stride,
        char *out, Place *start, char *last,
    ) except -1:
        """Run the network.

        x and its strides are of the input. The output, (timesteps, batch, width), and states, (states, batch,
        units), are contiguous; start: NULL for zeros; last: overwritten, or NULL.
        """
        cdef Py_ssize_t k, size = batch * self.network.states.units[0] * self.itemsize
        cdef Ready *ready = <Ready *> exchange(<void **> &self.spare, NULL)
        cdef fastgru_run_of *run
        if ready == NULL:
            ready = <Ready *> allocated(sizeof(Ready))
        run = &ready.run
        if ready.memory == NULL or run.batch != batch or run.timesteps != timesteps:
            try:
                ready.memory = prepared(self.network, batch, timesteps, run, &ready.memory, 0)
            except BaseException:
                free_ready(ready)
                raise
        run.x, run.x_batch_stride, run.x_time_stride = x.data, batch_stride, time_stride
        run.out[0], run.out_batch_stride[0], run.out_time_stride[0] = out, self.width, batch * self.width
        for k in range(self.network.net.state_count):
            (<char **> run.initial_states)[k] = NULL if start == NULL else start.data + k * size
            (<char **> run.states)[k] = NULL if last == NULL else last + k * size
        with nogil:
            run_network(self.network, run)
        free_ready(<Ready *> exchange(<void **> &self.spare, ready))
        return 0


cdef void free_ready(Ready *ready) noexcept:
    if ready != NULL:
        PyMem_RawFree(ready.memory)
        PyMem_RawFree(ready)


cdef Py_ssize_t place_of(Py_ssize_t index, sizes, strides) except -1:
    """Where an element lies that has this number, in elements from the first one."""
    cdef Py_ssize_t place = 0
    cdef int axis
    for axis in range(len(sizes) - 1, -1, -1):
        place += index % <Py_ssize_t> sizes[axis] * <Py_ssize_t> strides[axis]
        index //= <Py_ssize_t> sizes[axis]
    return place


cdef object placed(TensorCalls calls, tensor, Place *place, bint whole):
    """A plain tensor of the weights' type, or a copy of it, whose last axis, or whole, is contiguous.

    place: overwritten with where it lies. None: it is no plain one.
    """
    cdef Py_ssize_t expected = 1
    cdef bint fits = True
    cdef int axis
    cdef object sizes, strides
    if (
        (type(tensor) is not calls.tensor and type(tensor) is not calls.parameter)
        or tensor.dtype is not calls.dtype or not tensor.is_cpu or tensor.is_neg()
    ):
        return None
    try:
        place.data = <char *> <size_t> tensor.data_ptr()
        sizes, strides = tensor.shape, tensor.stride()
    except RuntimeError:  # sparse, nested and others, which have no such memory
        return None
    place.axes = len(sizes)
    if not 1 <= place.axes <= 3 or <size_t> place.data % calls.itemsize:
        return None
    for axis in range(place.axes - 1, -1, -1):
        place.sizes[axis], place.strides[axis] = sizes[axis], strides[axis]
        if not place.sizes[axis]:
            return None
        if (whole or axis == place.axes - 1) and place.sizes[axis] > 1 and place.strides[axis] != expected:
            fits = False
        expected *= place.sizes[axis]
    if fits:
        return tensor
    return placed(calls, tensor.contiguous(), place, whole)
