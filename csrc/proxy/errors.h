#pragma once

#include "proxy/object.h"

namespace pshpc::proxy {

/// The exception that is set, normalised and with its traceback; it is set no longer.
Ref take_exception();

/// Sets a ProxyResolveError with this text, caused by `cause`.
void raise_resolve_error(PyObject* message, PyObject* cause);

/// Sets a ProxyResolveError for the failed factory of `proxy`.
void raise_factory_error(ProxyObject* proxy, PyObject* cause);

/// Sets a ProxyResolveError with this text, caused by a new exception of type `cause_type`.
void raise_resolve_error(const char* message, PyObject* cause_type);

}  // namespace pshpc::proxy
