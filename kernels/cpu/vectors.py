"""Sixteen lanes as one value in Numba functions: each operation is one LLVM vector instruction.

Method: kernels work on sixteen blocks at once, one a lane, and never add up across lanes. So sums run in
the order of each block's own weights whatever the width of the machine's vectors: results are the same to
the bit on every machine, without `fastmath`. LLVM cuts sixteen lanes into what the processor has (one
AVX-512 register, two of AVX2, four of SSE or NEON), and keeps sums in registers across a loop over weights.
Left to the auto-vectorizer, the same loops kept their sums in memory and ran at a third of the speed.

`float32x16`, `int32x16` and `bool16` take + - * / & | ^ << >> and comparisons, among themselves or with a
scalar on either side. No operation is contracted into another (no fused multiply-add), so NumPy float32
arithmetic in the same order gives the same bits.
"""

import operator
from collections.abc import Callable
from typing import Any, ClassVar

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16


class Vector(types.Type):
    """Sixteen values of one scalar type."""

    def __init__(self, scalar: types.Type, element: ir.Type) -> None:
        self.scalar = scalar
        self.llvm = ir.VectorType(element, LANES)
        super().__init__(name=f"{scalar}x{LANES}")


float32x16 = Vector(types.float32, ir.FloatType())
int32x16 = Vector(types.int32, ir.IntType(32))
bool16 = Vector(types.boolean, ir.IntType(1))

Floats = Any
"""A value of `float32x16` in compiled code; so are `Ints` of `int32x16`, and `Truths` of `bool16`."""

Ints = Any
Truths = Any

_OF_SCALAR: dict[types.Type, Vector] = {types.float32: float32x16, types.int32: int32x16}
_SCALARS = {
    float32x16: (types.float32, types.float64, types.int64),
    int32x16: (types.int32, types.int64),
}


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.llvm)


def _spread(context: Any, builder: Any, given: types.Type, value: Any, kind: Vector) -> Any:
    """The vector that has `value` in each lane."""
    scalar = context.cast(builder, value, given, kind.scalar)
    undefined = ir.Constant(kind.llvm, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, undefined, zeros)


def _operator(function: Callable, kind: Vector, result: Vector, emit: Callable) -> None:
    """Teach Numba `function` on two vectors, and on a vector and a scalar in either order."""
    pairs: list[tuple[types.Type, types.Type]] = [(kind, kind)]
    for scalar in _SCALARS.get(kind, ()):
        pairs += [(kind, scalar), (scalar, kind)]

    class Template(ConcreteTemplate):
        key = function
        cases: ClassVar = [signature(result, *pair) for pair in pairs]

    infer_global(function)(Template)

    def lower(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        both = [
            value if given is kind else _spread(context, builder, given, value, kind)
            for given, value in zip(sig.args, args, strict=True)
        ]
        return emit(builder, *both)

    for pair in pairs:
        lower_builtin(function, *pair)(lower)


def _method(name: str) -> Callable:
    return lambda builder, a, b: getattr(builder, name)(a, b)


def _comparison(name: str, sign: str) -> Callable:
    return lambda builder, a, b: getattr(builder, name)(sign, a, b)


for _function, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_function, float32x16, float32x16, _method(_name))
for _function, _name in (
    (operator.add, "add"),
    (operator.sub, "sub"),
    (operator.mul, "mul"),
    (operator.and_, "and_"),
    (operator.or_, "or_"),
    (operator.xor, "xor"),
    (operator.lshift, "shl"),
    (operator.rshift, "lshr"),
):
    _operator(_function, int32x16, int32x16, _method(_name))
for _function, _name in ((operator.and_, "and_"), (operator.or_, "or_")):
    _operator(_function, bool16, bool16, _method(_name))
for _function, _sign in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    _order = "fcmp_unordered" if _sign == "!=" else "fcmp_ordered"  # NaN differs from all, itself too
    _operator(_function, float32x16, bool16, _comparison(_order, _sign))
    _operator(_function, int32x16, bool16, _comparison("icmp_signed", _sign))


@intrinsic
def splat(typing: Any, scalar: types.Type) -> Any:
    """The same float32 or int32 in each lane."""
    kind = _OF_SCALAR[scalar]

    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        return _spread(context, builder, sig.args[0], args[0], kind)

    return kind(scalar), emit


def _place(context: Any, builder: Any, array: types.Array, value: Any, index: Any, kind: Vector) -> Any:
    data = context.make_array(array)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [index]), kind.llvm.as_pointer())


@intrinsic
def load(typing: Any, array: types.Array, index: types.Type) -> Any:
    """array[index : index + 16], of a contiguous 1-D array of float32 or int32; bounds are not checked."""
    kind = _OF_SCALAR[array.dtype]

    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        value = builder.load(_place(context, builder, sig.args[0], args[0], args[1], kind))
        value.align = 4
        return value

    return kind(array, types.intp), emit


@intrinsic
def store(typing: Any, array: types.Array, index: types.Type, value: Vector) -> Any:
    """array[index : index + 16] = value; bounds are not checked."""

    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        place = _place(context, builder, sig.args[0], args[0], args[1], sig.args[2])
        builder.store(args[2], place).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, value), emit


@intrinsic
def gather(typing: Any, table: types.Array, index: Vector) -> Any:
    """table[index] lane by lane, of a contiguous 1-D table of float32 or int32; bounds are not checked."""
    kind = _OF_SCALAR[table.dtype]

    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        element, whole = kind.llvm.element, ir.IntType(32)
        mask = ir.VectorType(ir.IntType(1), LANES)
        pointers = ir.VectorType(element.as_pointer(), LANES)
        places = builder.gep(data, [args[1]], source_etype=element)
        places.type = pointers  # llvmlite takes it for one address
        declared = ir.FunctionType(kind.llvm, [pointers, whole, mask, kind.llvm])
        suffix = "f32" if kind is float32x16 else "i32"
        function = cgutils.get_or_insert_function(
            builder.module, declared, f"llvm.masked.gather.v{LANES}{suffix}.v{LANES}p0"
        )
        all_lanes = ir.Constant(mask, [1] * LANES)
        return builder.call(function, [places, whole(4), all_lanes, ir.Constant(kind.llvm, ir.Undefined)])

    return kind(table, index), emit


@intrinsic
def turn(
    typing: Any, rows: types.Array, start: types.Type, stride: types.Type, tile: types.Array, at: types.Type
) -> Any:
    """tile[at + 16 * i + lane] = rows[start + stride * lane + i] for i < 16: a 16 x 16 transposition."""

    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        rows, start, stride, tile, at = args
        kind = _OF_SCALAR[sig.args[0].dtype]
        columns = []
        for lane in range(LANES):
            index = builder.add(start, builder.mul(stride, start.type(lane)))
            value = builder.load(_place(context, builder, sig.args[0], rows, index, kind))
            value.align = 4
            columns.append(value)
        half = LANES // 2
        mask = ir.VectorType(ir.IntType(32), LANES)
        low = ir.Constant(mask, [place for i in range(half) for place in (i, i + LANES)])
        high = ir.Constant(mask, [place for i in range(half, LANES) for place in (i, i + LANES)])
        for _ in range(4):  # each round interleaves the first half with the second: 2^4 = 16
            columns = [
                builder.shuffle_vector(columns[i], columns[i + half], order)
                for i in range(half)
                for order in (low, high)
            ]
        for i, value in enumerate(columns):
            index = builder.add(at, at.type(LANES * i))
            builder.store(value, _place(context, builder, sig.args[3], tile, index, kind)).align = 4
        return context.get_dummy_value()

    return types.void(rows, types.intp, types.intp, tile, types.intp), emit


@intrinsic
def select(typing: Any, condition: Vector, yes: Vector, no: Vector) -> Any:
    """Lane by lane `yes` where the condition holds, else `no`."""

    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        return builder.select(*args)

    return yes(condition, yes, no), emit


def _extreme(sign: str) -> Any:
    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        return builder.select(builder.fcmp_ordered(sign, *args), *args)

    return emit


@intrinsic
def least(typing: Any, a: Vector, b: Vector) -> Any:
    """The smaller, lane by lane; the second where they are equal or one is NaN."""
    return float32x16(a, b), _extreme("<")


@intrinsic
def most(typing: Any, a: Vector, b: Vector) -> Any:
    """The larger, lane by lane; the second where they are equal or one is NaN."""
    return float32x16(a, b), _extreme(">")


def _conversion(instruction: str, result: Vector) -> Any:
    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        return getattr(builder, instruction)(args[0], result.llvm)

    return emit


@intrinsic
def to_float(typing: Any, a: Vector) -> Any:
    """int32x16 to float32x16."""
    return float32x16(a), _conversion("sitofp", float32x16)


@intrinsic
def to_int(typing: Any, a: Vector) -> Any:
    """float32x16 to int32x16, towards 0; lanes beyond int32 become anything."""
    return int32x16(a), _conversion("fptosi", int32x16)


@intrinsic
def bits(typing: Any, a: Vector) -> Any:
    """The bits of float32x16 as int32x16."""
    return int32x16(a), _conversion("bitcast", int32x16)


@intrinsic
def from_bits(typing: Any, a: Vector) -> Any:
    """int32x16 taken as the bits of float32x16."""
    return float32x16(a), _conversion("bitcast", float32x16)


@intrinsic
def square_root(typing: Any, a: Vector) -> Any:
    """The float32 nearest to the square root, lane by lane."""

    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        declared = ir.FunctionType(float32x16.llvm, [float32x16.llvm])
        function = cgutils.get_or_insert_function(builder.module, declared, f"llvm.sqrt.v{LANES}f32")
        return builder.call(function, args)

    return float32x16(a), emit


@intrinsic
def any_lane(typing: Any, condition: Vector) -> Any:
    """Whether the condition holds in at least one lane."""

    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        together = ir.IntType(LANES)
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], together), together(0))

    return types.boolean(condition), emit


@intrinsic
def load_halves(typing: Any, array: types.Array, index: types.Type) -> Any:
    """array[index : index + 16] of a contiguous uint16 array as int32x16; bounds are not checked."""

    def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        halves = ir.VectorType(ir.IntType(16), LANES)
        value = builder.load(builder.bitcast(builder.gep(data, [args[1]]), halves.as_pointer()))
        value.align = 2
        return builder.zext(value, int32x16.llvm)

    return int32x16(array, types.intp), emit


def _tally(step: int) -> Any:
    @intrinsic
    def tally(
        typing: Any, table: types.Array, first: types.Type, places: types.Array, index: types.Type
    ) -> Any:
        def emit(context: Any, builder: Any, sig: Any, args: tuple) -> Any:
            counts = context.make_array(sig.args[0])(context, builder, args[0]).data
            counts = builder.gep(counts, [args[1]])
            halves = context.make_array(sig.args[2])(context, builder, args[2]).data
            halves = builder.gep(halves, [args[3]])
            for lane in range(LANES):
                place = builder.load(builder.gep(halves, [ir.IntType(64)(lane * step)]))
                count = builder.gep(counts, [builder.zext(place, ir.IntType(64))])
                builder.store(builder.add(builder.load(count), ir.IntType(32)(1)), count)
            return context.get_dummy_value()

        return types.void(table, types.intp, places, types.intp), emit

    return tally


tally = _tally(1)
"""table[first + places[index + lane]] += 1, one lane after the other; of contiguous uint32 and uint16."""

tally_every_other = _tally(2)
"""The same of places[index + 2 * lane]."""
