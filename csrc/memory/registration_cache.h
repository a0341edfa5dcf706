#pragma once
// Registrations of memory that users own, shared while they live.
//
// Registering pins pages and costs more than a small transfer, so spans that were registered before
// are not registered again. Unlike caches that keep registrations of memory in the hope of its
// return, this one holds nothing: a registration ends with its last user. Otherwise memory that was
// freed and mapped again at the same address would be reached through pages of its former life.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "base/span.h"
#include "base/status.h"

namespace pshpc::memory {

// One of the pieces of memory that are registered now. Ends with its last reference; that of the
// door's handle is then dropped outside every lock of the cache.
class Registration {
 public:
  Span span() const { return span_; }  // covers what was asked for
  const std::shared_ptr<void>& handle() const { return handle_; }
  template <class T>
  T& as() const {
    return *static_cast<T*>(handle_.get());
  }

  ~Registration();

 private:
  friend class RegistrationCache;
  struct Live;
  Registration(std::shared_ptr<Live> live, Span span, std::shared_ptr<void> handle);

  std::shared_ptr<Live> live_;
  Span span_;
  std::shared_ptr<void> handle_;
};

// One cache for each kind of handle. Any thread.
class RegistrationCache {
 public:
  // Registers a span; dropping the handle undoes it.
  using Register = std::function<Expected<std::shared_ptr<void>>(Span)>;

  explicit RegistrationCache(Register make);
  RegistrationCache(const RegistrationCache&) = delete;
  RegistrationCache& operator=(const RegistrationCache&) = delete;

  // A live registration that contains `span`, else a new one of exactly `span`. A span that lies
  // in two registrations partly, but in none wholly, is registered by itself: enlarging one would
  // keep memory registered that only its other users promised to keep.
  // The caller keeps the memory alive for as long as it holds the result.
  Expected<std::shared_ptr<const Registration>> acquire(Span span);
  std::size_t size() const;

 private:
  std::shared_ptr<const Registration> find(Span span) const;

  const Register make_;
  const std::shared_ptr<Registration::Live> live_;
  std::mutex making_;  // one registration at a time; those that are live are found meanwhile
};

}  // namespace pshpc::memory
