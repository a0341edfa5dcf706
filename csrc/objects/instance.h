#pragma once
// One participant: its objects, its node socket, its doors, its progress thread and its links to
// the others. Everything that a store in Python stands on.

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fabric/progress.h"
#include "fabric/socket/server.h"
#include "memory/pool.h"
#include "memory/registration_cache.h"
#include "objects/bulk_client.h"
#include "objects/bulk_table.h"
#include "objects/handover.h"
#include "objects/owner.h"
#include "objects/reader.h"
#include "objects/service.h"
#include "rpc/host.h"
#include "rpc/messenger.h"

namespace pshpc::objects {

struct InstanceOptions {
  std::string store;       // the name told to peers
  Tag secret{};            // of the job; all zero: none
  bool trust_user = true;  // processes of this user on this node need no secret
  OwnerOptions owner;
  memory::ArenaOptions pool;
  std::vector<std::string> doors;  // empty: every one
  bool rings = true;               // messages to peers on this node go through shared memory
  fabric::Progress::Options progress;
  std::string host;  // where peers off this node say hello; empty: nowhere
  std::uint16_t port = 0;
  // A connection to the keeper that shall take over when this process ends; none: nobody does.
  std::shared_ptr<Handover> handover;
};

// Memory of the user's, readable in place for as long as this lives. May outlive its instance.
class LiveMemory {
 public:
  LiveMemory(std::shared_ptr<Owner> owner, Key key,
             std::shared_ptr<const memory::Registration> registration);
  ~LiveMemory();

  const Key& key() const { return key_; }
  Status begin_writing() { return owner_->begin_writing(key_.object_id); }
  Status end_writing() { return owner_->end_writing(key_.object_id); }
  // Peers cannot begin to read it any more; waits for the sends that are under way. With
  // Code::timed_out a peer that does not take what is sent to it still keeps the memory, which must
  // stay: close again later, or close the instance first.
  Status close(Deadline deadline);

 private:
  std::shared_ptr<Owner> owner_;
  const Key key_;
  std::shared_ptr<const memory::Registration> registration_;
};

class Instance {
 public:
  static Expected<std::unique_ptr<Instance>> create(InstanceOptions options);
  // In the place of an owner that has ended: with its name and its objects. Of the options, those
  // of the pool, of the doors and of progress count. Nobody is let in before resume().
  static Expected<std::unique_ptr<Instance>> adopt(Estate estate, InstanceOptions options);
  Status resume();
  ~Instance();

  // Code::forked in a child of the process that made it.
  Status usable() const;

  const std::shared_ptr<Owner>& owner() const { return owner_; }
  Reader& reader() { return *reader_; }
  BulkTable& bulks() { return *bulks_; }
  BulkClient& bulk_client() { return *bulk_client_; }
  const std::shared_ptr<BulkClient>& shared_bulk_client() { return bulk_client_; }
  rpc::Host& host() { return *host_; }
  const std::shared_ptr<rpc::Messenger>& messenger() const { return messenger_; }
  fabric::Progress& progress() { return progress_; }
  memory::Pool& pool() { return *pool_; }
  const rpc::Exposure& exposure() const { return *exposure_; }

  // Told to processes that have no store of this name yet.
  void set_config(std::string config);
  Status set_outside(Bytes outside);

  // From now on peers may come in, and are reached, through this door.
  Status open_door(const fabric::DoorHandle& door);
  // Members of a door's group, by number, whom no socket of ours may lead to.
  Status introduce(const std::string& door, const std::map<std::uint32_t, rpc::Address>& members);

  // The payload is `prefix`, then, from `live_offset` on, `live`; the caller keeps that alive.
  Expected<std::unique_ptr<LiveMemory>> expose_live(ConstSpan prefix, std::uint64_t live_offset,
                                                    Span live);

  // Evicts everything, or leaves it to the keeper if there is one and `clear` is false, and ends
  // the thread; calls that wait in other threads fail. Views that are still held stay valid.
  // Idempotent.
  void close(bool clear = false);

 private:
  explicit Instance(InstanceOptions options);
  Status start(std::optional<Estate> estate);
  Status bind();
  Status serve_listeners();
  Status introduce_to_keeper();

  const InstanceOptions options_;
  const std::uint32_t birth_;
  const std::shared_ptr<rpc::Exposure> exposure_ = std::make_shared<rpc::Exposure>();
  fabric::Progress progress_;
  std::shared_ptr<memory::BlockTable> table_;
  std::shared_ptr<ClaimTable> claim_table_;
  std::vector<int> listeners_;          // of the server
  std::vector<Fd> listeners_to_serve_;  // ours, or those that an owner left, until resume()
  std::shared_ptr<Owner> owner_;
  std::shared_ptr<memory::Pool> pool_;
  std::shared_ptr<Service> service_;
  std::shared_ptr<rpc::Messenger> messenger_;
  std::unique_ptr<rpc::Gate> gate_;
  std::unique_ptr<rpc::Host> host_;
  std::unique_ptr<fabric::SocketServer> server_;
  std::unique_ptr<Reader> reader_;
  std::shared_ptr<BulkTable> bulks_;
  std::shared_ptr<BulkClient> bulk_client_;
  std::unique_ptr<memory::RegistrationCache> registrations_;
  std::atomic<bool> closed_{false};
};

}  // namespace pshpc::objects
