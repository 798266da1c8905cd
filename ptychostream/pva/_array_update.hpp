// Updates of an NTNDArray channel as C++ values, and those as Python objects.
//
// `read` needs no interpreter's lock; everything that makes Python objects does.

#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <pvxs/data.h>

namespace {

using pvxs::ArrayType;
using pvxs::TypeCode;
using pvxs::Value;
using Array = pvxs::shared_array<const void>;

// The Python object that owns the memory of one payload, by the buffer protocol.

struct Payload {
    PyObject_HEAD
    Array array;
    Py_ssize_t count, itemsize;
    char format[2];
};

void payload_free(PyObject* self) {
    reinterpret_cast<Payload*>(self)->array.~Array();
    PyTypeObject* type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

int payload_buffer(PyObject* self, Py_buffer* view, int flags) {
    auto* payload = reinterpret_cast<Payload*>(self);
    void* data = const_cast<void*>(payload->array.data());
    if (PyBuffer_FillInfo(view, self, data, payload->count * payload->itemsize, 1, flags) < 0) return -1;
    view->itemsize = payload->itemsize;
    if (flags & PyBUF_FORMAT) view->format = payload->format;
    if (flags & PyBUF_ND) view->shape = &payload->count;
    if ((flags & PyBUF_STRIDES) == PyBUF_STRIDES) view->strides = &payload->itemsize;
    return 0;
}

PyTypeObject* payload_type = nullptr;
PyObject* asarray = nullptr;  // numpy's

PyObject* payload(const Array& array) {
    char format = 0;
    switch (array.original_type()) {
    case ArrayType::Bool: format = '?'; break;
    case ArrayType::Int8: format = 'b'; break;
    case ArrayType::UInt8: format = 'B'; break;
    case ArrayType::Int16: format = 'h'; break;
    case ArrayType::UInt16: format = 'H'; break;
    case ArrayType::Int32: format = 'i'; break;
    case ArrayType::UInt32: format = 'I'; break;
    case ArrayType::Int64: format = 'q'; break;
    case ArrayType::UInt64: format = 'Q'; break;
    case ArrayType::Float32: format = 'f'; break;
    case ArrayType::Float64: format = 'd'; break;
    default: Py_RETURN_NONE;  // an empty array
    }
    PyObject* self = payload_type->tp_alloc(payload_type, 0);
    if (!self) return nullptr;
    auto* made = reinterpret_cast<Payload*>(self);
    new (&made->array) Array(array);
    made->count = Py_ssize_t(array.size());
    made->itemsize = Py_ssize_t(pvxs::elementSize(array.original_type()));
    made->format[0] = format;
    return self;
}

// Updates of every layout, as dictionaries with the keys that reading.py asks for.

PyObject* plain(const Value& value);

PyObject* text(const std::string& words) { return PyUnicode_DecodeUTF8(words.data(), Py_ssize_t(words.size()), nullptr); }

// Takes the reference to `made`. False, with no error set, where `made` is null: texts that are not UTF-8.
bool put(PyObject* dict, const char* key, PyObject* made) {
    if (made) PyDict_SetItemString(dict, key, made);
    Py_XDECREF(made);
    PyErr_Clear();
    return made != nullptr;
}

// Takes the reference to `made`. None in the place of texts that are not UTF-8.
void put(PyObject* list, PyObject* made) {
    PyErr_Clear();
    PyList_Append(list, made ? made : Py_None);
    Py_XDECREF(made);
}

PyObject* plain_structure(const Value& value) {
    PyObject* dict = PyDict_New();
    for (const Value& member : value.ichildren())
        if (!put(dict, value.nameOf(member).c_str(), plain(member))) {
            Py_DECREF(dict);
            return nullptr;
        }
    return dict;
}

PyObject* plain_array(const Array& array) {
    if (array.original_type() != ArrayType::Value && array.original_type() != ArrayType::String) {
        PyObject* held = payload(array);
        if (!held || held == Py_None) return held;
        PyObject* made = PyObject_CallFunctionObjArgs(asarray, held, nullptr);
        Py_DECREF(held);
        return made;
    }
    PyObject* list = PyList_New(0);
    if (array.original_type() == ArrayType::String)
        for (auto& element : array.castTo<const std::string>()) put(list, text(element));
    else
        for (auto& element : array.castTo<const Value>()) put(list, element ? plain(element) : nullptr);
    return list;
}

PyObject* plain(const Value& value) {
    switch (value.storageType()) {
    case pvxs::StoreType::Bool: return PyBool_FromLong(value.as<bool>());
    case pvxs::StoreType::Integer: return PyLong_FromLongLong(value.as<int64_t>());
    case pvxs::StoreType::UInteger: return PyLong_FromUnsignedLongLong(value.as<uint64_t>());
    case pvxs::StoreType::Real: return PyFloat_FromDouble(value.as<double>());
    case pvxs::StoreType::String: return text(value.as<std::string>());
    case pvxs::StoreType::Array: return plain_array(value.as<Array>());
    case pvxs::StoreType::Compound: {  // a union, or a value of any type
        Value held = value.as<Value>();
        if (held) return plain(held);
        break;
    }
    case pvxs::StoreType::Null:
        if (value.type() == TypeCode::Struct) return plain_structure(value);
        break;
    }
    Py_RETURN_NONE;
}

const char* const KEYS[] = {
    "uniqueId", "value", "dimension", "codec.name", "codec.parameters", "compressedSize", "uncompressedSize",
    "dataTimeStamp.secondsPastEpoch", "dataTimeStamp.nanoseconds", "timeStamp", "timeStamp.secondsPastEpoch",
    "timeStamp.nanoseconds", "attribute",
};

PyObject* as_dictionary(const Value& value) {
    PyObject* dict = PyDict_New();
    for (const char* key : KEYS)
        if (const Value field = value[key]) put(dict, key, plain(field));
    if (const Value codec = value["codec"]) {
        std::ostringstream shown;
        shown << codec;
        put(dict, "codec", text(shown.str()));
    }
    return dict;
}

// Updates of the usual layout, read without the interpreter's lock.

struct Update {
    enum { USUAL, UNUSUAL, DISCONNECTED, ENDED } kind = USUAL;
    Value value;          // UNUSUAL
    std::string message;  // ENDED
    int32_t id = 0, code = 0;
    double time = 0;
    Array array;
    int64_t rows = 0, columns = 0, sent = 0, size = 0;
    int32_t offset[2] = {0, 0}, binning[2] = {1, 1};  // x, y
    bool reverse[2] = {false, false};
    bool plain = true;  // the region is the whole sensor's, as far as is known
    std::string codec;
    std::vector<std::pair<size_t, Value>> attributes;  // index in the names wanted
};

template <typename T>
bool get(const Value& value, const char* name, TypeCode::code_t code, T& out) {
    const Value field = value[name];
    return field && field.type() == code && field.as(out);
}

bool get_time(const Value& value, double& time) {
    int64_t seconds = 0;
    int32_t nanoseconds = 0;
    if (!get(value, "secondsPastEpoch", TypeCode::Int64, seconds)) return false;
    if (!get(value, "nanoseconds", TypeCode::Int32, nanoseconds)) return false;
    time = seconds > 0 ? double(seconds) + 1e-9 * nanoseconds : 0.0;
    return true;
}

bool get_shape(const Value& value, Update& out) {
    const Value dimension = value["dimension"];
    if (!dimension || dimension.type() != TypeCode::StructA) return false;
    const auto sizes = dimension.as<pvxs::shared_array<const Value>>();
    for (size_t i = 0; i < sizes.size(); i++) {
        int32_t size = 0;
        if (!sizes[i] || !get(sizes[i], "size", TypeCode::Int32, size) || size < 1 || (i > 1 && size > 1)) return false;
        if (i < 2) {
            (i ? out.rows : out.columns) = size;
            get(sizes[i], "offset", TypeCode::Int32, out.offset[i]);
            if (!get(sizes[i], "binning", TypeCode::Int32, out.binning[i])) out.binning[i] = 0;
            get(sizes[i], "reverse", TypeCode::Bool, out.reverse[i]);
            out.plain = out.plain && !out.offset[i] && out.binning[i] == 1 && !out.reverse[i];
        }
    }
    return sizes.size() >= 2;
}

bool get_attributes(const Value& value, const std::vector<std::string>& wanted, Update& out) {
    const Value attribute = value["attribute"];
    if (!attribute || attribute.type() != TypeCode::StructA) return false;
    for (const Value& one : attribute.as<pvxs::shared_array<const Value>>()) {
        std::string name;
        if (!one) continue;
        const Value any = one["value"];
        if (!get(one, "name", TypeCode::String, name) || !any || any.type() != TypeCode::Any) return false;
        for (size_t i = 0; i < wanted.size(); i++) {
            if (name != wanted[i]) continue;
            const Value held = any.as<Value>();
            if (held && !held.type().isarray() && held.type().kind() != pvxs::Kind::Compound)
                out.attributes.emplace_back(i, held);
        }
    }
    return true;
}

bool read(const Value& value, const std::vector<std::string>& wanted, Update& out) {
    if (!get(value, "uniqueId", TypeCode::Int32, out.id) || !get_shape(value, out)) return false;
    const Value data = value["value"];
    if (!data || data.type() != TypeCode::Union) return false;
    const Value selected = data.as<Value>();
    if (!selected || !selected.type().isarray() || selected.type().kind() != pvxs::Kind::Integer) return false;
    out.array = selected.as<Array>();
    // An array that was never filled has no type.
    if (out.array.original_type() != selected.type().arrayType()) return false;
    if (!get(value, "codec.name", TypeCode::String, out.codec)) return false;
    if (out.codec.empty()) {
        if (int64_t(out.array.size()) != out.rows * out.columns) return false;
    } else {
        for (const char letter : out.codec)
            if (letter < ' ' || letter > '~') return false;  // perhaps no UTF-8
        const Value parameters = value["codec.parameters"];
        const Value held = parameters && parameters.type() == TypeCode::Any ? parameters.as<Value>() : Value();
        if (!held || held.type() != TypeCode::Int32 || !held.as(out.code)) return false;
        if (!get(value, "compressedSize", TypeCode::Int64, out.sent)) return false;
        if (!get(value, "uncompressedSize", TypeCode::Int64, out.size)) return false;
    }
    const Value taken = value["dataTimeStamp"];
    if (!taken || !get_time(taken, out.time)) return false;
    if (out.time == 0.0)
        if (const Value stamp = value["timeStamp"])
            if (!get_time(stamp, out.time)) return false;
    return wanted.empty() || get_attributes(value, wanted, out);
}

PyObject* as_tuple(const Update& update, PyObject* wanted) {
    PyObject* attributes = PyDict_New();
    for (const auto& one : update.attributes)
        if (PyObject* held = plain(one.second)) {
            PyDict_SetItem(attributes, PyTuple_GET_ITEM(wanted, Py_ssize_t(one.first)), held);
            Py_DECREF(held);
        } else {
            PyErr_Clear();  // a text in another encoding
        }
    PyObject* region = nullptr;
    if (!update.plain)
        region = Py_BuildValue("(iiiiOO)", update.offset[0], update.offset[1], update.binning[0], update.binning[1],
                               update.reverse[0] ? Py_True : Py_False, update.reverse[1] ? Py_True : Py_False);
    const int kind = int(update.array.original_type()) - int(ArrayType::Int8) + 1;  // pvData's ScalarType
    const auto rows = (long long)update.rows, columns = (long long)update.columns;
    if (update.codec.empty()) {
        if (region)
            return Py_BuildValue("(idNiLLNON)", update.id, update.time, payload(update.array), kind, rows, columns,
                                 attributes, Py_None, region);
        return Py_BuildValue("(idNiLLN)", update.id, update.time, payload(update.array), kind, rows, columns, attributes);
    }
    PyObject* packed = Py_BuildValue("(NiLL)", text(update.codec), update.code, (long long)update.sent,
                                     (long long)update.size);
    if (region)
        return Py_BuildValue("(idNiLLNNN)", update.id, update.time, payload(update.array), kind, rows, columns,
                             attributes, packed, region);
    return Py_BuildValue("(idNiLLNN)", update.id, update.time, payload(update.array), kind, rows, columns, attributes,
                         packed);
}

}  // namespace
