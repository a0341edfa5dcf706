#include "objects/protocol.h"

namespace pshpc::objects {

const char* kind_name(Kind kind) {
  switch (kind) {
    case Kind::locate: return "store.locate";
    case Kind::exists: return "store.exists";
    case Kind::evict: return "store.evict";
    case Kind::segment: return "store.segment";
    case Kind::region: return "store.region";
    case Kind::reserve: return "store.reserve";
    case Kind::deliver: return "store.deliver";
    case Kind::publish: return "store.publish";
    case Kind::abort: return "store.abort";
    case Kind::fetch: return "store.fetch";
    case Kind::wait: return "store.wait";
    case Kind::pin_table: return "store.pin_table";
    case Kind::hold: return "store.hold";
    case Kind::release: return "store.release";
    case Kind::extend: return "store.extend";
    case Kind::validate: return "store.validate";
    case Kind::store: return "store.store";
  }
  return "store";
}

const char* explain_code(Code code) {
  switch (code) {
    case Code::not_found: return "it was never stored, or is not set yet";
    case Code::evicted: return "it was evicted";
    case Code::denied: return "its key was not issued by this owner";
    case Code::pinned: return "it was stored with Pinned(); evict it with force=True";
    case Code::closed: return "its owner closed the store";
    case Code::changed: return "it was updated";
    case Code::borrowed: return "it is borrowed or owned elsewhere";
    case Code::moved: return "the reference ended, or another process has taken it over";
    case Code::full: return "there are as many references as one process may hold";
    default: return code_name(code);
  }
}

}  // namespace pshpc::objects
