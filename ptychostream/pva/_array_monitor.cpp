// A PV Access monitor that hands over NTNDArray updates many at a time.
//
// The updates are taken from pvxs, read and freed without the interpreter's lock; the lock is held only while
// the Python objects are made. See array_monitor.py for what `take` returns.

#define PVXS_ENABLE_EXPERT_API
#include "_array_update.hpp"

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include <pvxs/client.h>
#include <pvxs/version.h>

namespace {

struct Signal {
    std::mutex mutex;
    std::condition_variable changed;
    bool set = false;

    void raise() {
        std::lock_guard<std::mutex> hold(mutex);
        set = true;
        changed.notify_one();
    }
};

struct Inner {
    pvxs::client::Context context;
    std::shared_ptr<pvxs::client::Subscription> subscription;
    std::shared_ptr<Signal> signal = std::make_shared<Signal>();
    std::string channel, request;
};

struct Monitor {
    PyObject_HEAD
    Inner* inner;
};

Inner& inner_of(PyObject* self) { return *reinterpret_cast<Monitor*>(self)->inner; }

// Runs `what` without the interpreter's lock; what it throws becomes a RuntimeError.
template <typename F>
bool unlocked(F&& what) {
    std::string failure;
    bool failed = false;
    Py_BEGIN_ALLOW_THREADS
    try {
        what();
    } catch (std::exception& error) {
        failed = true;
        failure = error.what();
    }
    Py_END_ALLOW_THREADS
    if (failed) PyErr_SetString(PyExc_RuntimeError, failure.c_str());
    return !failed;
}

template <typename F>
PyObject* done(F&& what) {
    if (!unlocked(what)) return nullptr;
    Py_RETURN_NONE;
}

PyObject* monitor_new(PyTypeObject* type, PyObject* args, PyObject*) {
    const char *channel, *request;
    if (!PyArg_ParseTuple(args, "ss", &channel, &request)) return nullptr;
    PyObject* self = type->tp_alloc(type, 0);
    if (!self) return nullptr;
    auto& inner = reinterpret_cast<Monitor*>(self)->inner;
    inner = new Inner;
    inner->channel = channel;
    inner->request = request;
    if (!unlocked([&] { inner->context = pvxs::client::Context::fromEnv(); })) Py_CLEAR(self);
    return self;
}

void monitor_free(PyObject* self) {
    Inner* inner = reinterpret_cast<Monitor*>(self)->inner;
    if (inner) unlocked([&] { delete inner; });
    PyTypeObject* type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject* monitor_subscribe(PyObject* self, PyObject*) {
    Inner& inner = inner_of(self);
    return done([&] {
        auto signal = inner.signal;
        inner.subscription = inner.context.monitor(inner.channel)
                                 .pvRequest(inner.request)
                                 .event([signal](pvxs::client::Subscription&) { signal->raise(); })
                                 .exec();
    });
}

PyObject* monitor_unsubscribe(PyObject* self, PyObject*) {
    Inner& inner = inner_of(self);
    return done([&] {
        if (inner.subscription) inner.subscription->cancel();
        inner.subscription.reset();
    });
}

PyObject* monitor_forget(PyObject* self, PyObject*) {
    Inner& inner = inner_of(self);
    return done([&] { inner.context.cacheClear(inner.channel, pvxs::client::Context::Disconnect); });
}

PyObject* monitor_close(PyObject* self, PyObject*) {
    Inner& inner = inner_of(self);
    return done([&] {
        inner.subscription.reset();
        if (inner.context) inner.context.close();
    });
}

PyObject* monitor_wake(PyObject* self, PyObject*) {
    Inner& inner = inner_of(self);
    return done([&] { inner.signal->raise(); });
}

PyObject* monitor_wait(PyObject* self, PyObject* args) {
    double timeout_s, rest_s;
    if (!PyArg_ParseTuple(args, "dd", &timeout_s, &rest_s)) return nullptr;
    Signal& signal = *inner_of(self).signal;
    using seconds = std::chrono::duration<double>;
    return done([&] {
        std::unique_lock<std::mutex> hold(signal.mutex);
        if (!signal.changed.wait_for(hold, seconds(timeout_s), [&] { return signal.set; })) return;
        hold.unlock();
        if (rest_s > 0) std::this_thread::sleep_for(seconds(rest_s));
        hold.lock();
        signal.set = false;
    });
}

void pop(pvxs::client::Subscription& subscription, const std::vector<std::string>& wanted, size_t most,
         std::vector<Update>& out) {
    while (out.size() < most) {
        Update update;
        try {
            Value value = subscription.pop();
            if (!value) break;
            if (!read(value, wanted, update)) {
                update = Update();
                update.kind = Update::UNUSUAL;
                update.value = std::move(value);
            }
        } catch (pvxs::client::Finished&) {
            update.kind = Update::ENDED;
            update.message = "finished";
        } catch (pvxs::client::Disconnect&) {
            update.kind = Update::DISCONNECTED;
        } catch (std::exception& error) {
            update.kind = Update::ENDED;
            update.message = error.what();
        }
        out.push_back(std::move(update));
    }
}

PyObject* as_python(const Update& update, PyObject* wanted) {
    switch (update.kind) {
    case Update::USUAL: return as_tuple(update, wanted);
    case Update::UNUSUAL: return as_dictionary(update.value);
    case Update::ENDED: return PyUnicode_DecodeUTF8(update.message.data(), Py_ssize_t(update.message.size()), "replace");
    case Update::DISCONNECTED: break;
    }
    Py_RETURN_NONE;
}

PyObject* monitor_take(PyObject* self, PyObject* args) {
    PyObject* names;
    Py_ssize_t most;
    if (!PyArg_ParseTuple(args, "O!n", &PyTuple_Type, &names, &most)) return nullptr;
    std::vector<std::string> wanted;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        const char* name = PyUnicode_AsUTF8(PyTuple_GET_ITEM(names, i));
        if (!name) return nullptr;
        wanted.emplace_back(name);
    }
    auto subscription = inner_of(self).subscription;
    std::vector<Update> updates;
    if (subscription && !unlocked([&] { pop(*subscription, wanted, size_t(most), updates); })) return nullptr;
    PyObject* list = PyList_New(0);
    for (const Update& update : updates) {
        PyObject* made = as_python(update, names);
        if (!made || PyList_Append(list, made) < 0) {
            Py_XDECREF(made);
            Py_CLEAR(list);
            break;
        }
        Py_DECREF(made);
    }
    Py_BEGIN_ALLOW_THREADS
    updates.clear();
    Py_END_ALLOW_THREADS
    return list;
}

PyMethodDef monitor_methods[] = {
    {"subscribe", monitor_subscribe, METH_NOARGS, nullptr},
    {"unsubscribe", monitor_unsubscribe, METH_NOARGS, nullptr},
    {"forget", monitor_forget, METH_NOARGS, nullptr},
    {"close", monitor_close, METH_NOARGS, nullptr},
    {"wake", monitor_wake, METH_NOARGS, nullptr},
    {"wait", monitor_wait, METH_VARARGS, nullptr},
    {"take", monitor_take, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyType_Slot monitor_slots[] = {
    {Py_tp_new, reinterpret_cast<void*>(monitor_new)},
    {Py_tp_dealloc, reinterpret_cast<void*>(monitor_free)},
    {Py_tp_methods, monitor_methods},
    {0, nullptr},
};
PyType_Spec monitor_spec = {"ptychostream.pva._array_monitor.ArrayMonitor", sizeof(Monitor), 0, Py_TPFLAGS_DEFAULT,
                            monitor_slots};

PyType_Slot payload_slots[] = {
    {Py_tp_dealloc, reinterpret_cast<void*>(payload_free)},
    {Py_bf_getbuffer, reinterpret_cast<void*>(payload_buffer)},
    {0, nullptr},
};
PyType_Spec payload_spec = {"ptychostream.pva._array_monitor.Payload", sizeof(Payload), 0, Py_TPFLAGS_DEFAULT,
                            payload_slots};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_array_monitor", nullptr, -1, nullptr, nullptr, nullptr, nullptr,
                      nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__array_monitor() {
    if (!pvxs::version_abi_check()) {
        PyErr_SetString(PyExc_ImportError, "compiled for another version of pvxs");
        return nullptr;
    }
    PyObject* numpy = PyImport_ImportModule("numpy");
    asarray = numpy ? PyObject_GetAttrString(numpy, "asarray") : nullptr;
    if (!asarray) return nullptr;
    payload_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&payload_spec));
    PyObject* monitor = PyType_FromSpec(&monitor_spec);
    PyObject* made = PyModule_Create(&module);
    if (!payload_type || !monitor || !made || PyModule_AddObject(made, "ArrayMonitor", monitor) < 0) return nullptr;
    return made;
}
