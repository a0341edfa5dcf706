#include <algorithm>
#include <map>
#include <memory>
#include <optional>

#include "bindings/completions.h"
#include "bindings/core.h"
#include "bindings/core_keeping.h"
#include "bindings/core_lease.h"
#include "bindings/core_rpc.h"
#include "bindings/graveyard.h"
#include "bindings/parts_view.h"
#include "fabric/door.h"
#include "objects/instance.h"

namespace pshpc::bindings {
namespace {

using objects::Instance;
using objects::InstanceOptions;
using objects::Key;
using objects::Policy;

// Copies below this are not worth giving the GIL away, if nothing else has to be waited for.
constexpr std::size_t kReleaseFrom = 32 * 1024;
// How long closing registered memory waits for a peer that is being sent it.
constexpr Nanoseconds kCloseTime = 5 * kSecond;

// An instance that Python holds. In a forked child it is neither used nor taken apart.
class PyInstance {
 public:
  explicit PyInstance(std::unique_ptr<Instance> instance) : instance_(std::move(instance)) {}
  ~PyInstance() {
    if (instance_->usable().code() != Code::forked) {
      close();
    } else {  // threads, sockets and pins are the parent's
      [[maybe_unused]] const Instance* kept = instance_.release();
    }
  }

  Status state() const { return instance_->usable(); }
  Instance& use() {
    check(instance_->usable());
    return *instance_;
  }
  void close(bool clear = false) {
    {
      const py::gil_scoped_release release;
      instance_->close(clear);
    }
    release_buried();
  }
  void open_door(const py::object& capsule) {
    auto* door =
        static_cast<fabric::DoorHandle*>(PyCapsule_GetPointer(capsule.ptr(), fabric::kDoorCapsule));
    if (door == nullptr) throw py::error_already_set();
    Instance& instance = use();
    const Status status = [&] {
      py::gil_scoped_release release;
      return instance.open_door(*door);
    }();
    check(status);
  }
  void introduce(const std::string& door, const std::map<std::uint32_t, std::string>& members) {
    std::map<std::uint32_t, rpc::Address> parsed;
    for (const auto& [number, packed] : members) {
      parsed.emplace(number, check(rpc::Address::parse(ConstSpan(packed))));
    }
    check(use().introduce(door, parsed));
  }
  std::shared_ptr<objects::Owner> owner() const { return instance_->owner(); }

  [[noreturn]] void refuse(const Status& status) {
    if (status.code() != Code::full) raise(status);
    const auto report = owner()->arena().last_full();
    py::dict details;
    details["requested"] = report.requested;
    details["capacity"] = report.capacity;
    details["used"] = report.used;
    details["largest_free"] = report.largest_free;
    raise(status, details);
  }

  py::bytes put(std::uint64_t length, const py::list& segments, std::int64_t ttl_ns,
                std::uint32_t flags, std::uint64_t object, std::uint64_t claim) {
    Instance& instance = use();
    const PartsView view(segments, length);
    const Policy policy{ttl_ns, flags};
    const objects::Into into{object, claim};
    Expected<Key> key = Status(Code::unavailable, "");
    if (length < kReleaseFrom) key = instance.owner()->put_now(length, view.parts(), policy, into);
    if (key.status().code() == Code::unavailable) {
      py::gil_scoped_release release;
      key = instance.owner()->put(length, view.parts(), policy, into);
    }
    if (!key.ok()) refuse(key.status());
    return to_bytes(key->encode());
  }

  py::bytes put_to(const py::bytes& address, std::uint64_t length, const py::list& segments,
                   std::int64_t ttl_ns, std::uint32_t flags, double timeout) {
    Instance& instance = use();
    const std::string raw = address;
    const auto owner = check(objects::OwnerAddress::parse(ConstSpan(raw)));
    const PartsView view(segments, length);
    Expected<Key> key = [&] {
      py::gil_scoped_release release;
      return instance.reader().put_to(owner, length, view.parts(), {ttl_ns, flags},
                                      to_deadline(timeout));
    }();
    if (!key.ok()) refuse(key.status());
    return to_bytes(key->encode());
  }

  py::bytes put_into(const py::bytes& packed, std::uint64_t claim, std::uint64_t length,
                     const py::list& segments, std::int64_t ttl_ns, std::uint32_t flags,
                     double timeout) {
    Instance& instance = use();
    const Key target = to_key(packed);
    const PartsView view(segments, length);
    Expected<Key> key = [&] {
      py::gil_scoped_release release;
      return instance.reader().put_into(target, claim, length, view.parts(), {ttl_ns, flags},
                                        to_deadline(timeout));
    }();
    if (!key.ok()) refuse(key.status());
    return to_bytes(key->encode());
  }

  std::unique_ptr<PyBlock> allocate(std::uint64_t length) {
    Instance& instance = use();
    auto owner = instance.owner();
    Expected<objects::Reservation> reservation = [&] {
      py::gil_scoped_release release;
      auto reserved = owner->reserve(length);
      if (reserved.ok()) {
        const Status touched = owner->arena().touch(reserved->block);
        if (!touched.ok()) {
          owner->abort(reserved->object_id);
          return Expected<objects::Reservation>(touched);
        }
      }
      return reserved;
    }();
    if (!reservation.ok()) refuse(reservation.status());
    return std::make_unique<PyBlock>(std::move(owner), reservation.value());
  }

  PyLease get(const py::bytes& packed, bool writable, double timeout) {
    Instance& instance = use();
    const Key key = to_key(packed);
    py::gil_scoped_release release;
    auto lease = instance.reader().get(key, {writable}, to_deadline(timeout));
    py::gil_scoped_acquire acquire;
    return PyLease(check(std::move(lease)));
  }

  py::list get_batch(const py::list& packed, bool writable, double timeout) {
    Instance& instance = use();
    const auto keys = to_keys(packed);
    std::vector<Expected<objects::Lease>> leases = [&] {
      py::gil_scoped_release release;
      return instance.reader().get_batch(keys, {writable}, to_deadline(timeout));
    }();
    py::list results;
    for (auto& lease : leases) {
      if (lease.ok())
        results.append(PyLease(std::move(lease).value()));
      else
        results.append(to_exception(lease.status()));
    }
    return results;
  }

  PyLease get_range(const py::bytes& packed, std::uint64_t offset, std::uint64_t length,
                    double timeout) {
    Instance& instance = use();
    const Key key = to_key(packed);
    py::gil_scoped_release release;
    auto lease = instance.reader().get_range(key, offset, length, to_deadline(timeout));
    py::gil_scoped_acquire acquire;
    return PyLease(check(std::move(lease)));
  }

  std::string read_into(const py::bytes& packed, std::uint64_t offset, const py::object& target,
                        double timeout) {
    Instance& instance = use();
    const Key key = to_key(packed);
    const BufferView view(target, BufferView::Access::write);
    Expected<const char*> door = [&] {
      py::gil_scoped_release release;
      return instance.reader().read_into(key, offset, view.writable(), to_deadline(timeout));
    }();
    return check(std::move(door));
  }

  // One exception or None for each key.
  template <class Ask>
  py::list ask(const py::list& packed, double timeout, Ask ask) {
    Instance& instance = use();
    const auto keys = to_keys(packed);
    const std::vector<Status> outcome = [&] {
      py::gil_scoped_release release;
      return ask(instance.reader(), keys, to_deadline(timeout));
    }();
    py::list results;
    for (const Status& status : outcome)
      results.append(status.ok() ? py::object(py::none()) : to_exception(status));
    return results;
  }

  void hold(const py::bytes& packed, std::uint64_t claim, std::uint8_t mode, bool fresh,
            std::int64_t lease_ns, double timeout) {
    Instance& instance = use();
    const Key key = to_key(packed);
    const objects::ClaimRequest request{claim, static_cast<objects::ClaimMode>(mode), fresh,
                                        lease_ns};
    const Status status = [&] {
      py::gil_scoped_release release;
      return instance.reader().hold(key, request, to_deadline(timeout));
    }();
    check(status);
  }
  // From finalizers: silent where there is nothing to release any more.
  void release(const py::bytes& packed, std::uint64_t claim) {
    if (instance_->usable().ok()) instance_->reader().release(to_key(packed), claim);
  }

  // Tells the queue once the object of one of our own keys is there, or cannot be any more.
  void watch(const py::bytes& packed, double timeout, std::shared_ptr<Completions> queue,
             py::object token) {
    Instance& instance = use();
    const Key key = to_key(packed);
    const objects::Waiting waiting{0, to_deadline(timeout).remaining()};
    auto held = std::make_shared<Buriable>(std::move(token));
    const py::gil_scoped_release release;
    instance.owner()->when_published(key.object_id, key.capability, waiting,
                                     [queue = std::move(queue), held = std::move(held)](
                                         const Status&) { queue->push(std::move(*held)); });
  }

  py::bytes wait_for(const py::bytes& packed, double timeout) {
    Instance& instance = use();
    const Key key = to_key(packed);
    Expected<Key> found = [&] {
      py::gil_scoped_release release;
      return instance.reader().wait_for(key, to_deadline(timeout));
    }();
    return to_bytes(check(std::move(found)).encode());
  }

  std::pair<std::string, std::string> store_of(const py::bytes& packed, double timeout) {
    Instance& instance = use();
    const Key key = to_key(packed);
    auto link = [&] {
      py::gil_scoped_release release;
      return instance.reader().link(key.owner, &key, to_deadline(timeout));
    }();
    const auto& welcome = check(std::move(link))->welcome();
    return {welcome.name, welcome.config};
  }

  py::dict stats() const {
    const auto stats = owner()->stats();
    const auto pool = instance_->pool().stats();
    py::dict facts;
    facts["capacity"] = stats.arena.capacity;
    facts["mapped"] = stats.arena.mapped;
    facts["used"] = stats.arena.used;
    facts["warm"] = stats.arena.warm;
    facts["largest_free"] = stats.arena.largest_free;
    facts["segments"] = stats.arena.segments;
    facts["objects"] = stats.objects;
    facts["retired_blocks"] = stats.retired_blocks;
    facts["retired_bytes"] = stats.retired_bytes;
    facts["readers"] = stats.readers;
    facts["references"] = stats.references;
    facts["received"] = pool.taken;
    facts["pool_overflowed"] = pool.overflowed;
    return facts;
  }

  py::dict rpc_stats() const {
    py::list served;
    for (const rpc::MethodStats& method : instance_->messenger()->served()) {
      py::dict facts;
      facts["name"] = method.name;
      facts["provider"] = method.provider;
      facts["calls"] = method.calls;
      facts["failures"] = method.failures;
      facts["bytes_in"] = method.bytes_in;
      facts["bytes_out"] = method.bytes_out;
      served.append(facts);
    }
    py::dict all;
    all["served"] = served;
    all["in_flight"] = instance_->messenger()->calls_in_flight();
    return all;
  }

  py::dict doors() const {
    py::dict all;
    for (const auto& door : instance_->exposure().doors()) {
      py::dict facts;
      for (const auto& [name, value] : door->facts()) facts[py::str(name)] = value;
      all[py::str(door->name())] = facts;
    }
    return all;
  }

  py::dict channels(const py::bytes& packed, double timeout) {
    Instance& instance = use();
    const Key key = to_key(packed);
    auto opened = [&] {
      py::gil_scoped_release release;
      return instance.reader().link(key.owner, &key, to_deadline(timeout));
    }();
    const auto link = check(std::move(opened));
    py::dict all;
    for (const auto& door : instance.exposure().doors())
      if (const auto channel = link->channel(door->name())) {
        py::dict facts;
        facts["lanes"] = channel->describe();
        facts["one_sided"] = channel->one_sided();
        all[py::str(door->name())] = facts;
      }
    return all;
  }

 private:
  std::unique_ptr<Instance> instance_;
};

// Keeps the user's buffer, and the instance that exposes it.
class PyLiveMemory {
 public:
  PyLiveMemory(py::object instance, const py::object& prefix, std::uint64_t live_offset,
               const py::object& buffer)
      : instance_(std::move(instance)),
        buffer_(std::make_unique<BufferView>(buffer, BufferView::Access::read)) {
    const BufferView described(prefix, BufferView::Access::read);
    live_ = check(py::cast<PyInstance&>(instance_).use().expose_live(described.span(), live_offset,
                                                                     buffer_->writable()));
  }
  ~PyLiveMemory() {
    // The peer that still reads it keeps the buffer, which then stays until the process ends.
    if (end().ok()) return;
    [[maybe_unused]] const BufferView* kept = buffer_.release();
  }

  py::bytes key() const { return to_bytes(live_->key().encode()); }
  void begin_writing() { check(live_->begin_writing()); }
  void end_writing() { check(live_->end_writing()); }
  void close() { check(end()); }

 private:
  Status end() {
    py::gil_scoped_release release;
    return live_->close(Deadline::after(kCloseTime));
  }

  py::object instance_;
  std::unique_ptr<BufferView> buffer_;
  std::unique_ptr<objects::LiveMemory> live_;
};

template <class Make>
std::unique_ptr<Instance> without_gil(Make make) {
  Expected<std::unique_ptr<Instance>> made = [&] {
    const py::gil_scoped_release release;
    return make();
  }();
  check(made.status());
  return std::move(made.value());
}

std::unique_ptr<PyInstance> open_instance(const std::string& store, std::uint64_t capacity,
                                          std::uint64_t pool_capacity, double grace,
                                          const std::vector<std::string>& doors,
                                          const std::optional<py::bytes>& secret,
                                          const std::string& host, std::uint16_t port, bool polling,
                                          double spin, bool rings, int keeper) {
  InstanceOptions options;
  options.store = store;
  options.owner.arena.name = "pshpc-" + store;
  options.owner.arena.capacity = capacity;
  options.owner.grace = static_cast<Nanoseconds>(grace * 1e9);
  options.pool.name = "pshpc-pool-" + store;
  options.pool.capacity = pool_capacity;
  options.doors = doors;
  if (secret) options.secret = to_tag(*secret, "a secret");
  options.host = host;
  options.port = port;
  options.progress.mode = polling ? fabric::ProgressMode::polling : fabric::ProgressMode::adaptive;
  options.progress.spin = static_cast<Nanoseconds>(spin * 1e9);
  options.rings = rings;
  if (keeper >= 0) options.handover = handover_over(keeper);
  return std::make_unique<PyInstance>(
      without_gil([&] { return Instance::create(std::move(options)); }));
}

std::unique_ptr<PyInstance> adopt_instance(const py::dict& left) {
  objects::Estate estate = estate_of(left);
  InstanceOptions options;
  options.pool.name = "pshpc-pool-kept";
  return std::make_unique<PyInstance>(
      without_gil([&] { return Instance::adopt(std::move(estate), std::move(options)); }));
}

}  // namespace

Status state_of(const py::object& python_instance) {
  return py::cast<const PyInstance&>(python_instance).state();
}

objects::Instance& instance_of(const py::object& python_instance) {
  return py::cast<PyInstance&>(python_instance).use();
}

void bind_instance(py::module_& module) {
  py::class_<PyInstance>(module, "Instance",
                         "One participant: its objects, its doors and its progress thread.")
      .def(py::init(&open_instance), py::arg("store"), py::kw_only(), py::arg("capacity") = 0,
           py::arg("pool_capacity") = 0, py::arg("grace") = 0.1,
           py::arg("doors") = std::vector<std::string>{}, py::arg("secret") = py::none(),
           py::arg("host") = "", py::arg("port") = 0, py::arg("polling") = false,
           py::arg("spin") = 100e-6, py::arg("rings") = true, py::arg("keeper") = -1)
      .def_static("adopt", &adopt_instance, py::arg("left"))
      .def("resume", [](PyInstance& self) { check(self.use().resume()); })
      .def("trim",
           [](PyInstance& self) {
             auto& arena = self.use().owner()->arena();
             const py::gil_scoped_release release;
             arena.trim();
           })
      .def(
          "shed",
          [](PyInstance& self, std::uint64_t most) {
            const auto shed = self.use().owner()->shed(most);
            return std::make_pair(shed.objects, shed.bytes);
          },
          py::arg("most"))
      .def("open_door", &PyInstance::open_door, py::arg("capsule"))
      .def(
          "introduce",
          [](PyInstance& self, const std::string& door, const py::dict& members) {
            std::map<std::uint32_t, std::string> packed;
            for (const auto& [number, address] : members)
              packed.emplace(py::cast<std::uint32_t>(number),
                             py::cast<std::string>(py::reinterpret_borrow<py::bytes>(address)));
            self.introduce(door, packed);
          },
          py::arg("door"), py::arg("members"))
      .def_property_readonly(
          "address", [](PyInstance& self) { return to_bytes(self.owner()->self().encode()); })
      .def_property_readonly("owner_id",
                             [](PyInstance& self) { return self.owner()->self().short_name(); })
      .def("set_config",
           [](PyInstance& self, std::string config) { self.use().set_config(std::move(config)); })
      .def("set_outside",
           [](PyInstance& self, const py::bytes& outside) {
             const std::string bytes = outside;
             check(self.use().set_outside(ConstSpan(bytes).copy()));
           })
      .def("put", &PyInstance::put, py::arg("length"), py::arg("segments"), py::arg("ttl_ns") = 0,
           py::arg("flags") = 0, py::arg("into") = 0, py::arg("claim") = 0)
      .def("put_into", &PyInstance::put_into, py::arg("key"), py::arg("claim"), py::arg("length"),
           py::arg("segments"), py::arg("ttl_ns") = 0, py::arg("flags") = 0,
           py::arg("timeout") = 30.0)
      .def("put_to", &PyInstance::put_to, py::arg("address"), py::arg("length"),
           py::arg("segments"), py::arg("ttl_ns") = 0, py::arg("flags") = 0,
           py::arg("timeout") = 30.0)
      .def("allocate", &PyInstance::allocate, py::arg("length"))
      .def("warm",
           [](PyInstance& self, std::uint64_t bytes) {
             auto& arena = self.use().owner()->arena();
             const Status status = [&] {
               py::gil_scoped_release release;
               return arena.warm(bytes);
             }();
             if (!status.ok()) self.refuse(status);
           })
      .def("new_key",
           [](PyInstance& self) { return to_bytes(self.use().owner()->new_key().encode()); })
      .def("get", &PyInstance::get, py::arg("key"), py::arg("writable") = false,
           py::arg("timeout") = 30.0)
      .def("get_batch", &PyInstance::get_batch, py::arg("keys"), py::arg("writable") = false,
           py::arg("timeout") = 30.0)
      .def("get_range", &PyInstance::get_range, py::arg("key"), py::arg("offset"),
           py::arg("length"), py::arg("timeout") = 30.0)
      .def("read_into", &PyInstance::read_into, py::arg("key"), py::arg("offset"),
           py::arg("target"), py::arg("timeout") = 30.0)
      .def(
          "exists",
          [](PyInstance& self, const py::list& keys, double timeout) {
            return self.ask(keys, timeout, [](auto& reader, const auto& all, Deadline deadline) {
              return reader.exists(all, deadline);
            });
          },
          py::arg("keys"), py::arg("timeout") = 30.0)
      .def(
          "evict",
          [](PyInstance& self, const py::list& keys, bool force, double timeout) {
            return self.ask(keys, timeout,
                            [force](auto& reader, const auto& all, Deadline deadline) {
                              return reader.evict(all, force, deadline);
                            });
          },
          py::arg("keys"), py::arg("force") = false, py::arg("timeout") = 30.0)
      .def(
          "validate",
          [](PyInstance& self, const py::list& keys, const std::vector<std::uint64_t>& generations,
             double timeout) {
            if (generations.size() != keys.size())
              raise({Code::invalid, "as many generations as keys are needed"});
            return self.ask(keys, timeout, [&](auto& reader, const auto& all, Deadline deadline) {
              return reader.validate(all, generations, deadline);
            });
          },
          py::arg("keys"), py::arg("generations"), py::arg("timeout") = 30.0)
      .def(
          "extend",
          [](PyInstance& self, const py::list& keys, std::int64_t ttl_ns, double timeout) {
            return self.ask(keys, timeout,
                            [ttl_ns](auto& reader, const auto& all, Deadline deadline) {
                              return reader.extend(all, ttl_ns, deadline);
                            });
          },
          py::arg("keys"), py::arg("ttl_ns"), py::arg("timeout") = 30.0)
      .def("hold", &PyInstance::hold, py::arg("key"), py::arg("claim"), py::arg("mode"),
           py::arg("fresh"), py::arg("lease_ns"), py::arg("timeout") = 30.0)
      .def("release", &PyInstance::release, py::arg("key"), py::arg("claim"))
      .def("watch", &PyInstance::watch, py::arg("key"), py::arg("timeout"), py::arg("queue"),
           py::arg("token"))
      .def("start_wait", &start_wait, py::arg("key"), py::arg("timeout"))
      .def("wait_for", &PyInstance::wait_for, py::arg("key"), py::arg("timeout") = 30.0)
      .def("store_of", &PyInstance::store_of, py::arg("key"), py::arg("timeout") = 30.0)
      .def("channels", &PyInstance::channels, py::arg("key"), py::arg("timeout") = 30.0)
      .def_property_readonly("address_text",
                             [](PyInstance& self) { return self.owner()->self().to_text(); })
      .def("endpoint", &open_endpoint, py::arg("address"), py::arg("timeout") = 10.0)
      .def(
          "serve",
          [](PyInstance& self, const std::string& name, std::uint16_t provider, py::object handler,
             const py::object& pool) {
            serve_python(self.use(), name, provider, std::move(handler), pool);
          },
          py::arg("name"), py::arg("provider"), py::arg("handler"), py::arg("pool"))
      .def(
          "serve_native",
          [](PyInstance& self, const std::string& name, std::uint16_t provider,
             py::object capsule) {
            check(self.use().messenger()->add_handler(name, rpc::method_id(name), provider,
                                                      native_handler(std::move(capsule))));
          },
          py::arg("name"), py::arg("provider"), py::arg("capsule"))
      .def(
          "withdraw",
          [](PyInstance& self, const std::string& name, std::uint16_t provider) {
            check(self.use().messenger()->remove_handler({rpc::method_id(name), provider}));
            release_buried();
          },
          py::arg("name"), py::arg("provider"))
      .def("refuse_requests", [](PyInstance& self) { self.use().messenger()->refuse_requests(); })
      .def("end_calls",
           [](PyInstance& self) {
             const py::gil_scoped_release release;
             self.use().messenger()->end_calls({Code::closed, "it was closed on this side"});
           })
      .def("rpc_stats", &PyInstance::rpc_stats)
      .def("doors", &PyInstance::doors)
      .def("stats", &PyInstance::stats)
      .def("close", &PyInstance::close, py::arg("clear") = false);

  py::class_<PyLiveMemory>(module, "LiveMemory",
                           "Memory of the user's that is readable in place until it is closed.")
      .def(py::init<py::object, const py::object&, std::uint64_t, const py::object&>(),
           py::arg("instance"), py::arg("prefix"), py::arg("live_offset"), py::arg("buffer"))
      .def_property_readonly("key", &PyLiveMemory::key)
      .def("begin_writing", &PyLiveMemory::begin_writing)
      .def("end_writing", &PyLiveMemory::end_writing)
      .def("close", &PyLiveMemory::close);
}

}  // namespace pshpc::bindings
