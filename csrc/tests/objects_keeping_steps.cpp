// An owner is stopped after every single instruction of what it does; whoever takes over then finds
// all that had been published, whole, and nothing else.

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <optional>
#include <string>

#include "tests/heir.h"
#include "tests/objects_instance.h"

// One thread only, and TSan takes ten instructions for each.
#ifndef __SANITIZE_THREAD__

using namespace pshpc;
using namespace pshpc::objects;
using namespace pshpc::test;

namespace {

constexpr std::uint64_t kCapacity = 256 * 1024;
constexpr std::uint64_t kClaim = 9;
constexpr Tag kHolder{1, 2, 3};
constexpr std::uint64_t kConnection = 1;
// What the owner does, in this order.
enum Step {
  kPutC = 1,
  kEvictA,
  kPutD,
  kUpdateB,
  kExtendC,
  kEvictD,
  kPutE,
  kLendB,
  kReturnB,
  kSteps = kReturnB
};
// The numbers that its objects get.
enum Object : std::uint64_t { kA = 1, kB, kC, kD, kUpdate, kE };

Bytes value_of(std::uint64_t object, bool updated = false) {
  const std::size_t sizes[] = {0, 100, 3000, 200, 5000, 0, 64};
  return patterned(updated ? 1500 : sizes[object],
                   static_cast<std::uint8_t>(object * 17 + (updated ? 1 : 0)));
}

// Shared by both processes.
struct Scene {
  std::atomic<int> done{0};
  int table = -1;
  int claims = -1;
  int segment = -1;
};

void play(Scene& scene, const OwnerOptions& options) {
  auto owner = owner_with(options);
  const Key a = must_put(*owner, value_of(kA));
  const Key b = must_put(*owner, value_of(kB));
  owner->join(kConnection, kHolder, true);
  const auto hold = [&](bool fresh, Nanoseconds lease) {
    const ClaimRequest request{kClaim, ClaimMode::own, fresh, lease};
    REQUIRE(owner->hold(b.object_id, b.capability, request, kConnection).ok());
  };
  hold(true, 0);
  scene.claims = options.claim_table->fd();
  scene.table = options.table->fd();
  scene.segment = owner->arena().segment(0)->fd();
  const Bytes of_c = value_of(kC), of_d = value_of(kD), of_e = value_of(kE);
  const Bytes of_b = value_of(kB, true);
  if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(2);
  ::raise(SIGSTOP);
  const Key c = must_put(*owner, of_c);
  scene.done = kPutC;
  REQUIRE(evict(*owner, a).ok());
  scene.done = kEvictA;
  const Key d = must_put(*owner, of_d);
  scene.done = kPutD;
  REQUIRE(owner->put(of_b.size(), {{0, of_b}}, {}, {b.object_id, kClaim}).ok());
  scene.done = kUpdateB;
  REQUIRE(owner->extend(c.object_id, c.capability, 1000 * kSecond).ok());
  scene.done = kExtendC;
  REQUIRE(evict(*owner, d).ok());
  scene.done = kEvictD;
  static_cast<void>(must_put(*owner, of_e));
  scene.done = kPutE;
  hold(false, 1000 * kSecond);
  scene.done = kLendB;
  hold(false, 0);
  scene.done = kReturnB;
}

class Memory {
 public:
  Memory(pid_t pid, int fd) {
    const std::string path = "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd);
    Fd opened(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    REQUIRE(static_cast<bool>(opened));
    struct stat facts{};
    REQUIRE(::fstat(opened.get(), &facts) == 0);
    auto mapped = Mapping::file(opened.get(), 0, static_cast<std::size_t>(facts.st_size),
                                Mapping::Access::read);
    REQUIRE(mapped.ok());
    mapping_ = std::move(mapped).value();
  }
  ConstSpan bytes() const { return {mapping_.data(), mapping_.size()}; }
  // As it is now, for an heir that may change it.
  Fd snapshot() const {
    Fd fd(::memfd_create("pshpc-test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    // The rest of tables has no memory behind it.
    const auto used = std::min<std::uint64_t>(mapping_.size(), kCapacity);
    REQUIRE(::ftruncate(fd.get(), static_cast<off_t>(used)) == 0);
    REQUIRE(::pwrite(fd.get(), mapping_.data(), used, 0) == static_cast<ssize_t>(used));
    REQUIRE(::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) == 0);
    return fd;
  }

 private:
  Mapping mapping_;
};

// Table, and the headers of the blocks in it: all that an heir goes by.
Bytes gist(const Memory& table, const Memory& claims, const Memory& segment) {
  Bytes gist =
      table.bytes().slice(0, sizeof(memory::SlotsHeader) + 16 * sizeof(memory::TableSlot)).copy();
  const auto* slots =
      reinterpret_cast<const memory::TableSlot*>(table.bytes().data + sizeof(memory::SlotsHeader));
  for (int i = 0; i < 16; ++i) {
    const std::uint64_t block = slots[i].block.load();
    if (block == 0) continue;
    const Bytes header = segment.bytes().slice(block - 1, kHeaderSize).copy();
    gist.insert(gist.end(), header.begin(), header.end());
  }
  const Bytes references = claims.bytes().slice(0, 1024).copy();
  gist.insert(gist.end(), references.begin(), references.end());
  return gist;
}

void check_heir(const OwnerOptions& options, const Memory& table, const Memory& claims,
                const Memory& segment, int done) {
  auto taken = heir_of(options, table.snapshot(), claims.snapshot(), segment.snapshot());
  if (!taken.ok()) note_failure(__FILE__, __LINE__, taken.status().message());
  REQUIRE(taken.ok());
  Owner& heir = *taken.value();
  const auto found = [&](std::uint64_t object) -> std::optional<Bytes> {
    auto located = heir.pin(object, heir.capability(object));
    if (!located) return std::nullopt;
    return ConstSpan(located->block.data + kHeaderSize, located->length).copy();
  };
  const auto expect = [&](std::uint64_t object, int born, int gone) {
    const auto value = found(object);
    if (done >= born && done + 1 < gone) CHECK(value.has_value());
    if (done + 1 < born || done >= gone) CHECK(!value.has_value());
    if (value) CHECK(*value == value_of(object));
  };
  expect(kA, 0, kEvictA);
  expect(kC, kPutC, kSteps + 2);
  expect(kD, kPutD, kEvictD);
  expect(kE, kPutE, kSteps + 2);
  CHECK(!found(kUpdate).has_value());
  // Never gone, and never half of each.
  const auto b = found(kB);
  CHECK(b.has_value());
  if (!b) return;
  if (done < kUpdateB - 1) CHECK(*b == value_of(kB));
  if (done >= kUpdateB) CHECK(*b == value_of(kB, true));
  CHECK(*b == value_of(kB) || *b == value_of(kB, true));
  // Neither is a reference lost that changes hands.
  heir.join(kConnection, kHolder, true);
  const ClaimRequest request{kClaim, ClaimMode::own, false, kSecond};
  CHECK(heir.hold(kB, heir.capability(kB), request, kConnection).ok());
}

}  // namespace

TEST(keeping_finds_what_a_killed_owner_had_published) {
  auto options = kept_options(kCapacity);
  void* shared =
      ::mmap(nullptr, sizeof(Scene), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(shared != MAP_FAILED);
  auto& scene = *new (shared) Scene;
  const pid_t owner = ::fork();
  REQUIRE(owner >= 0);
  if (owner == 0) {
    options.table = std::move(memory::BlockTable::create(kCapacity).value());
    options.claim_table = std::move(ClaimTable::create().value());
    play(scene, options);
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(owner, &status, 0) == owner);
  if (!WIFSTOPPED(status)) return;  // tracing is not allowed here
  const Memory table(owner, scene.table), claims(owner, scene.claims);
  const Memory segment(owner, scene.segment);
  Bytes last;
  int moments = 0, done_before = -1;
  while (WIFSTOPPED(status) && scene.done < kSteps) {
    const Bytes now = gist(table, claims, segment);
    if (now != last || scene.done != done_before) {
      check_heir(options, table, claims, segment, scene.done);
      last = now;
      done_before = scene.done;
      ++moments;
    }
    REQUIRE(::ptrace(PTRACE_SINGLESTEP, owner, nullptr, nullptr) == 0);
    REQUIRE(::waitpid(owner, &status, 0) == owner);
  }
  check_heir(options, table, claims, segment, scene.done);
  CHECK_EQ(scene.done.load(), int{kSteps});
  CHECK(moments > 40);
  ::kill(owner, SIGKILL);
  ::waitpid(owner, &status, 0);
  ::munmap(shared, sizeof(Scene));
}

#endif  // __SANITIZE_THREAD__
