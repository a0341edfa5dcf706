#pragma once
// Outcomes of operations. Nothing below the bindings throws across a thread or a C callback.

#include <cassert>
#include <optional>
#include <string>
#include <utility>

namespace pshpc {

enum class Code {
  ok,
  invalid,      // arguments, keys or messages that cannot be meant
  not_found,    // the owner never had such an object
  evicted,      // the object was there and is gone
  owner_gone,   // the owner's process ended or was replaced
  peer_lost,    // the connection broke in the middle of an operation
  timed_out,    // the deadline passed
  full,         // no memory left within the capacity
  closed,       // this side is closed
  denied,       // credentials, secret or capability were refused
  protocol,     // the peer speaks something else
  unavailable,  // a door cannot be had here
  changed,      // registered memory changed while it was read
  pinned,       // the object is protected from eviction
  forked,       // used in a child of the process that opened it
  no_method,    // the peer has registered no procedure of that name
  no_provider,  // the peer has the procedure, but not for that provider
  cancelled,    // given up by the one who asked
  replaced,     // another process answers at the peer's address: it was restarted
  raised,       // the handler raised; what that was follows
  failed,       // the handler failed, and says why
  system,       // the operating system refused
  unreached,    // nobody answers from here; the key names other ways to the owner
  borrowed,     // other references to the object exclude it
  moved,        // the reference ended, or is somebody else's now
};
inline constexpr Code kLastCode = Code::moved;

const char* code_name(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::ok; }
  explicit operator bool() const { return ok(); }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

  // Puts the caller's view in front: "get of object 7 from owner ab12: connection reset".
  Status within(const std::string& context) const {
    return ok() ? *this : Status(code_, context + ": " + message_);
  }

 private:
  Code code_ = Code::ok;
  std::string message_;
};

// A Status for a failed system call, with what was attempted and errno's text.
Status system_error(const std::string& attempted, int error_number);
Status system_error(const std::string& attempted);

template <class T>
class [[nodiscard]] Expected {
 public:
  Expected(T value) : value_(std::move(value)) {}
  Expected(Status status) : status_(std::move(status)) { assert(!status_.ok()); }

  bool ok() const { return status_.ok(); }
  explicit operator bool() const { return ok(); }
  const Status& status() const { return status_; }

  T& value() & { return assert(ok()), *value_; }
  const T& value() const& { return assert(ok()), *value_; }
  T&& value() && { return assert(ok()), std::move(*value_); }
  T* operator->() { return assert(ok()), &*value_; }
  const T* operator->() const { return assert(ok()), &*value_; }

 private:
  Status status_;
  std::optional<T> value_;
};

}  // namespace pshpc
