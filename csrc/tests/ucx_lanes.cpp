// What UCX prints, in the forms that its versions print it, and what we read out of it.

#include "fabric/ucx/lanes.h"

#include "fabric/ucx/inspect.h"
#include "tests/check.h"

using namespace pshpc::fabric::ucx;

namespace {

constexpr const char* kSharedMemory =
    "#\n# UCP endpoint \n#\n#               peer: <no debug data>\n"
    "#                 lane[0]:  1:posix/memory.0 md[1]          -> md[1]/posix/sysdev[255] seg "
    "4294967295 am keepalive\n"
    "#                 lane[1]:  2:cma/memory.0 md[2]            -> md[2]/cma/sysdev[255] seg "
    "4294967295 rma_bw#0\n#\n"
    "# | 93..8248 | copy-in | posix/memory |\n";
constexpr const char* kTcp =
    "#                 lane[0]:  1:tcp/lo.0 md[1]                -> md[1]/tcp/sysdev[255] rma_bw#0 "
    "am "
    "am_bw#0 wireup\n";
constexpr const char* kVerbs =
    "#                 lane[0]:  5:rc_mlx5/mlx5_0:1.0 md[4]      -> md[4]/ib/sysdev[0] rma#0 am "
    "am_bw#0\n";

}  // namespace

TEST(ucx_lanes_are_parsed) {
  const auto lanes = parse_lanes(kSharedMemory);
  REQUIRE(lanes.size() == 2);
  CHECK_EQ(lanes[0].transport, "posix");
  CHECK_EQ(lanes[0].device, "memory");
  CHECK_EQ(lanes[1].transport, "cma");
  CHECK_EQ(describe(lanes), "posix/memory(am,keepalive) cma/memory(rma_bw)");
}

TEST(ucx_a_lane_is_one_sided_by_its_transport_and_its_role) {
  CHECK(reads_one_sided(parse_lanes(kSharedMemory), true));
  // Before 1.16 a lane for bandwidth served rendezvous only.
  CHECK(!reads_one_sided(parse_lanes(kSharedMemory), false));
  CHECK(!reads_one_sided(parse_lanes(kTcp), true));
  CHECK(reads_one_sided(parse_lanes(kVerbs), false));
  CHECK(shares_memory(parse_lanes(kSharedMemory)));
  CHECK(!shares_memory(parse_lanes(kTcp)));
  CHECK(!reads_by_kernel(parse_lanes(kVerbs)));
}

TEST(ucx_device_names_may_hold_colons) {
  const auto lanes = parse_lanes(kVerbs);
  REQUIRE(lanes.size() == 1);
  CHECK_EQ(lanes[0].device, "mlx5_0:1");
}

TEST(ucx_what_is_no_lane_is_passed_over) {
  CHECK(parse_lanes("").empty());
  CHECK(parse_lanes("lane[0]:").empty());
  CHECK(parse_lanes("lane[0]: nonsense -> md\nlane[1]: 1: -> x").empty());
}

TEST(ucx_inventory_is_parsed) {
  const auto inventory = parse_inventory(
      "# UCP context\n#     component 0  :  self\n#     component 4  :  ib\n"
      "#            md 0  :  component 0  self \n#            md 3  :  component 4  mlx5_0 \n"
      "#      resource 0  :  md 0  dev 0  flags -- self/memory0\n"
      "#      resource 1  :  md 3  dev 1  flags -- rc_mlx5/mlx5_0:1\n# resource\n");
  REQUIRE(inventory.transports.size() == 2);
  CHECK_EQ(inventory.transports[1].name, "rc_mlx5");
  CHECK_EQ(inventory.transports[1].device, "mlx5_0:1");
  CHECK_EQ(inventory.transports[1].domain, "mlx5_0");
  CHECK(inventory.has_verbs());
  CHECK(!parse_inventory("").has_verbs());
}

TEST(ucx_the_library_in_use_describes_itself) {
  CHECK(version().at_least(1, 11));
  CHECK(library_path().find("libucp") != std::string::npos);
  auto inventory = full_inventory();
  REQUIRE(inventory.ok());
  bool has_tcp = false;
  for (const auto& transport : inventory.value().transports) has_tcp |= transport.name == "tcp";
  CHECK(has_tcp);
}
