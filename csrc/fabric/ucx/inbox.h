#pragma once
// Active messages in: told to their channel by a token, announced in the order they were sent,
// handed to the Receiver outside the worker's lock by one thread at a time.
//
// A message is one active message: a prefix of ours, the sender's header, the payload. UCX decides
// whether the payload comes along (eager) or is fetched into its destination (rendezvous).

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <unordered_map>

#include <ucp/api/ucp.h>

#include "fabric/door.h"

namespace pshpc::fabric::ucx {

class Inbox;
class Worker;

enum class MessageKind : std::uint32_t {
  message,
  long_header,  // the payload is the header of the next message
  greeting,     // tells our token to the other end of a connection made by host and port
};

struct Prefix {
  std::uint64_t token;     // of the receiver's choice
  std::uint32_t sequence;  // counts the messages to this token
  MessageKind kind;
};
static_assert(sizeof(Prefix) == 16);

inline constexpr unsigned kMessageId = 0;

// Something for the Receiver. Recycled.
struct Arrival {
  enum class What { announced, landed, job };

  What what = What::announced;
  Inbox* inbox = nullptr;
  std::shared_ptr<Channel> channel;
  Bytes header;
  Bytes small;           // a payload short enough to have been copied
  void* data = nullptr;  // UCX's: a longer eager payload, or the rendezvous to accept
  std::size_t size = 0;
  bool rendezvous = false;
  bool abandoned = false;  // only its callback is still to come
  Span into;
  Status status;
  std::function<void()> job;
  std::list<Arrival>::iterator self;
};

class Inbox {
 public:
  // Learns the token of the other end of a connection made by host and port. Under the lock.
  class Greeted {
   public:
    virtual ~Greeted() = default;
    virtual void greeted_locked(std::uint64_t remote_token) = 0;
  };

  explicit Inbox(Worker& worker) : worker_(worker) {}
  Status open();

  // Whoever gets what arrives; null drops it. Set before the first channel opens.
  void set_receiver(Receiver* receiver) { receiver_.store(receiver); }
  Receiver* receiver() const { return receiver_.load(); }

  // The following under the worker's lock.

  // A token of ours that a peer may already use: its messages wait for the channel.
  std::uint64_t new_token();
  void attach(std::uint64_t token, const std::shared_ptr<Channel>& channel);
  void detach(std::uint64_t token);
  void await_greeting(ucp_ep_h endpoint, Greeted* channel) { ungreeted_[endpoint] = channel; }
  void forget_greeting(ucp_ep_h endpoint) { ungreeted_.erase(endpoint); }
  // A message of this channel has been seen: the way there and back works.
  bool heard_of(std::uint64_t token) const;
  // Runs `job` in turn, outside the lock.
  void later(std::function<void()> job);
  bool has_news() const { return !news_.empty(); }
  // After the endpoint of a channel was closed by force: what was landing ends now. For transports
  // that bring a payload in pieces, which UCX then drops; others wait for UCX.
  void abandon_landings(const Channel& channel, const Status& why);
  bool is_quiet() const { return news_.empty() && landing_.empty(); }
  std::vector<std::shared_ptr<Channel>> open_channels() const;
  void take_news(std::list<Arrival>& batch) { batch.splice(batch.end(), news_); }
  void recycle(std::list<Arrival>& batch);
  void drop_all();

  // Outside the lock, one thread at a time. A payload still to be fetched leaves the batch.
  void publish(std::list<Arrival>& batch, std::list<Arrival>::iterator arrival);

  std::uint64_t rejected() const { return rejected_.load(std::memory_order_relaxed); }

 private:
  struct Mailbox {
    std::weak_ptr<Channel> channel;
    bool open = false;
    std::uint32_t next = 0;
    bool has_long_header = false;
    Bytes long_header;
    // Ahead of their turn: fragments of several lanes may overtake each other.
    std::unordered_map<std::uint32_t, std::pair<MessageKind, std::list<Arrival>>> waiting;
    std::list<Arrival> early;  // before attach()
  };

  static ucs_status_t on_message(void* self, const void* header, std::size_t header_size,
                                 void* data, std::size_t size, const ucp_am_recv_param_t* param);
  static void on_landed(void* request, ucs_status_t status, std::size_t size, void* user_data);

  bool take(ConstSpan header, void* data, std::size_t size, const ucp_am_recv_param_t& param,
            bool* keep);
  void admit(Mailbox& mailbox, MessageKind kind, std::list<Arrival>& arrival);
  std::list<Arrival> blank();
  void discard(Arrival& arrival);
  void accept(std::list<Arrival>& batch, std::list<Arrival>::iterator arrival);

  Worker& worker_;
  std::atomic<Receiver*> receiver_{nullptr};
  std::atomic<std::uint64_t> rejected_{0};
  std::unordered_map<std::uint64_t, Mailbox> mailboxes_;
  std::unordered_map<ucp_ep_h, Greeted*> ungreeted_;
  std::list<Arrival> news_;
  std::list<Arrival> landing_;
  std::list<Arrival> spare_;
};

}  // namespace pshpc::fabric::ucx
