#!/usr/bin/env python3
"""Computes from the CPU time of a call what a deployment can serve, and checks itself against what was measured.

    benches/model/capacity.py RUN.json          predicts rate and p99, beside those measured in the same run
    benches/model/capacity.py RUN.json --plan 1000000 100000    what so many hits and misses a second need

RUN.json is what `scripts/bench capacity` or `capacity-cluster` writes into benches/runs. Standard library only.

The simulation is one of queues. A call visits processes in a fixed order; a process has one or a few threads, each
of which serves one visit at a time, in the order of arrival; threads share the cores in turns. A visit takes CPU
time with a fixed part, such as a system call and a wake-up, which all calls in flight share, and a part of its own:
`fixed / in_flight + own`. Both come from two measurements, of one call at a time and of 64 in flight. The rest of
the time of one call at a time, in which no process computes (a disk, a core that wakes up), is a wait that calls in
flight share in the same way. Other programs take as many cores as they used during the run, a slice at a time. Nothing
is fitted to the rates and latencies under load, nor to the CPU times at half and at 0.8 of the highest rate.
"""

import argparse
import heapq
import json
import math
import random
import sys
from collections import deque

PROCESSES = ["client", "worker", "RabbitMQ", "Redis"]

# Threads that a process can use at once; None: as many as there are cores.
THREADS = {"client": None, "worker": 1, "RabbitMQ": None, "Redis": 1}

# The processes that a call visits, in this order.
PATHS = {
    "hits": ["client", "Redis", "client"],
    # Look up, publish; take, claim the key, compute, store, reply; verify.
    "misses": [
        "client", "Redis", "client", "RabbitMQ",
        "worker", "Redis", "worker", "Redis", "worker",
        "RabbitMQ", "client",
    ],
}

# Seconds for which a thread keeps a core while another one waits for it: a tick of a kernel with 250 Hz.
SLICE = 0.004
# Seconds between two looks of an open loop for calls that are due: what a short sleep takes.
PACE = 0.00006
CALLS = 30_000

CLOSED = 64
SHARES = {"at half of it": 0.5, "at 0.8 of it": 0.8}


class Run:
    """The medians of a run by `scripts/bench capacity`."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            run = json.load(file)
        self.facts = {name: value for name, value in run.items() if name != "rows"}
        self.rows = {row["what"]: median(row["ours"]) for row in run["rows"]}
        self.cores = int(run["cores"])

    def figure(self, kind, load, name):
        return self.rows[f"{kind}, {load}: {name}"]

    def costs(self, kind):
        """CPU seconds of one call by process, as (fixed, own)."""
        costs = {}
        for process in PROCESSES:
            alone = self.figure(kind, "1 at a time", process) / 1e6
            loaded = self.figure(kind, "64 in flight", process) / 1e6
            # alone = fixed + own; loaded = fixed / CLOSED + own
            fixed = max(0.0, (alone - loaded) * CLOSED / (CLOSED - 1))
            costs[process] = (fixed, max(0.0, alone - fixed))
        return costs

    def cpu(self, kind, load):
        """CPU microseconds of one call in the processes that it visits."""
        return sum(self.figure(kind, load, process) for process in set(PATHS[kind]))

    def wait(self, kind):
        """Seconds of one call at a time in which no process of ours computes."""
        took = self.figure(kind, "1 at a time", "p50") / 1e3
        return max(0.0, took - self.cpu(kind, "1 at a time") / 1e6)


def median(values):
    return sorted(values)[len(values) // 2]


class Simulation:
    """Calls of one kind on one machine; `rate` is that of an open loop, otherwise 64 calls are always in flight."""

    def __init__(self, run, kind, load, rate=None):
        self.path = PATHS[kind]
        visits = {process: self.path.count(process) for process in self.path}
        costs = run.costs(kind)
        self.visit = {p: tuple(part / visits[p] for part in costs[p]) for p in visits}
        self.wait = run.wait(kind)
        self.idle_cores = cores = run.cores
        self.others = run.figure(kind, load, "other programs")
        self.random = random.Random(1)
        self.threads = {p: THREADS[p] or cores for p in visits}
        self.queues = {p: deque() for p in visits}
        self.runnable = deque()
        self.events, self.order, self.now = [], 0, 0.0
        self.rate, self.in_flight, self.begun = rate, 0, 0
        self.latencies, self.ended, self.used = [], [], 0.0

    def at(self, time, action, *arguments):
        self.order += 1
        heapq.heappush(self.events, (time, self.order, action, arguments))

    def run(self):
        """Calls a second, CPU microseconds of a call, p99 in milliseconds."""
        self.disturb()
        if self.rate:
            self.at(0.0, self.release)
        else:
            for _ in range(CLOSED):
                self.begin(0.0)
        while self.events and len(self.latencies) < CALLS:
            self.now, _, action, arguments = heapq.heappop(self.events)
            action(*arguments)
        # The first tenth fills the queues.
        warm = CALLS // 10
        latencies = sorted(self.latencies[warm:])
        seconds = self.ended[-1] - self.ended[warm]
        rate, p99 = len(latencies) / seconds, latencies[len(latencies) * 99 // 100]
        return rate, self.used / len(self.latencies) * 1e6, p99 * 1e3

    def disturb(self):
        """Other programs: each takes a core for a slice, as often as makes their share."""
        if self.others:
            self.at(self.now + self.random.expovariate(self.others / SLICE), self.disturb)
            if self.now:
                self.runnable.append(None)
                self.give_cores()

    def release(self):
        """Begins the calls of an open loop that are due."""
        while self.begun / self.rate <= self.now:
            self.begin(self.begun / self.rate)
        self.at(self.now + PACE, self.release)

    def begin(self, due):
        self.begun += 1
        self.in_flight += 1
        self.arrive(due, 0)

    def arrive(self, due, step):
        process = self.path[step]
        self.queues[process].append((due, step))
        if self.threads[process]:
            self.threads[process] -= 1
            self.runnable.append(process)
            self.give_cores()

    def give_cores(self):
        while self.idle_cores and self.runnable:
            self.idle_cores -= 1
            process = self.runnable.popleft()
            if process:
                self.serve(process, self.now + SLICE)
            else:
                self.at(self.now + SLICE, self.leave_core)

    def leave_core(self):
        self.idle_cores += 1
        self.give_cores()

    def serve(self, process, until):
        """A thread of the process, which has a core until then, serves its next visit."""
        if not self.queues[process]:
            # Another thread has taken it.
            self.threads[process] += 1
            self.leave_core()
            return
        due, step = self.queues[process].popleft()
        fixed, own = self.visit[process]
        takes = fixed / self.in_flight + own
        self.used += takes
        self.at(self.now + takes, self.served, process, until, due, step)

    def served(self, process, until, due, step):
        if step + 1 < len(self.path):
            # The waits of a call are spread over its steps.
            wait = self.wait / self.in_flight / (len(self.path) - 1)
            self.at(self.now + wait, self.arrive, due, step + 1)
        else:
            self.in_flight -= 1
            self.latencies.append(self.now - due)
            self.ended.append(self.now)
            if not self.rate:
                self.begin(self.now)
        if self.now >= until and self.runnable:
            self.runnable.append(process)
            self.leave_core()
        else:
            self.serve(process, until)


def compare(run):
    """Predictions beside what was measured."""
    columns = ["calls a second", "CPU, µs a call", "p99, ms"]
    print("| load | " + " | ".join(f"{column}: predicted | measured | ratio" for column in columns) + " |")
    print("| --- |" + " --- |" * 3 * len(columns))
    for kind in PATHS:
        for load in ["64 in flight", *SHARES]:
            rate = None
            if load in SHARES:
                # The share of what was measured, which is what the run was given.
                rate = run.figure(kind, "64 in flight", "rate") * SHARES[load]
            predicted = Simulation(run, kind, load, rate).run()
            measured = run.figure(kind, load, "rate"), run.cpu(kind, load), run.figure(kind, load, "p99")
            cells = [f"{p:,.{d}f} | {m:,.{d}f} | {p / m:.2f}" for p, m, d in zip(predicted, measured, [0, 1, 2])]
            print(f"| {kind}, {load} | {' | '.join(cells)} |")


def show_costs(run):
    print(", ".join(f"{name} {value}" for name, value in run.facts.items()) + "\n")
    print("| CPU time of a call, µs | " + " | ".join(PROCESSES) + " | all | bytes to and from Redis | other programs |")
    print("| --- |" + " --- |" * (len(PROCESSES) + 3))
    for kind in PATHS:
        for load in ["1 at a time", "64 in flight", *SHARES]:
            # A hit costs RabbitMQ and workers nothing; what they do meanwhile is not its cost.
            costs = [run.figure(kind, load, process) for process in PROCESSES if process in PATHS[kind]]
            cells = [f"{run.figure(kind, load, p):.1f}" if p in PATHS[kind] else "" for p in PROCESSES]
            numbers = " | ".join([*cells, f"{sum(costs):.1f}"])
            size = run.figure(kind, load, "to and from Redis")
            others = run.figure(kind, load, "other programs")
            print(f"| {kind}, {load} | {numbers} | {size:.0f} | {others:.1f} cores |")
    print()


def plan(run, hits, misses, use):
    """What so many calls a second need, with a share `use` of each core busy."""
    clients = math.ceil(hits / run.figure("hits", "64 in flight", "rate") / use)
    processes = {"client": clients, "Redis": 1, "worker": 1, "RabbitMQ": 1}
    for _ in range(50):
        # Calls in flight share the fixed part of a visit within a process: more processes, less sharing. At worst:
        # a shard that many clients use shares wake-ups among them.
        in_flight = {
            "client": CLOSED,
            "Redis": CLOSED / processes["Redis"],
            "worker": clients * CLOSED / processes["worker"],
            # What a worker receives and sends at once.
            "RabbitMQ": clients * CLOSED / processes["worker"],
        }
        hit, miss = ({p: cost(run, kind, p, min(in_flight[p], CLOSED)) for p in PROCESSES} for kind in PATHS)
        # A hit does not use them.
        hit["worker"] = hit["RabbitMQ"] = 0.0
        cores = {p: hits * hit[p] + misses * miss[p] for p in PROCESSES}
        for process in ["Redis", "worker", "RabbitMQ"]:
            processes[process] = math.ceil(cores[process] / use)
    print(f"{hits:,} hits and {misses:,} misses a second, each core {use:.0%} busy:\n")
    print("| | needs | cores busy | µs a hit | µs a miss |")
    print("| --- | --- | --- | --- | --- |")
    fewest = (hits * cost(run, "hits", "Redis", CLOSED) + misses * cost(run, "misses", "Redis", CLOSED)) / use
    for process, needs in {
        "client": f"{clients} processes",
        "Redis": f"{math.ceil(fewest)} to {processes['Redis']} shards",
        "worker": f"{processes['worker']} processes, and cores for computing",
        "RabbitMQ": f"{processes['RabbitMQ']} cores, over all nodes",
    }.items():
        each = f"{hit[process] * 1e6:.1f} | {miss[process] * 1e6:.1f}"
        print(f"| {process} | {needs} | {cores[process]:.1f} | {each} |")
    for name, what in {"queue": "queues", "log": "nodes that lead queues"}.items():
        share = run.rows[f"misses: share of the {name}'s process"]
        most = 1e6 / (share * run.figure("misses", "64 in flight", "RabbitMQ"))
        needs = math.ceil(misses / most / use)
        print(f"| a {name}'s process | {needs} {what}; one is full at {most:,.0f} misses a second | | | |")
    sent = hits * run.figure("hits", "64 in flight", "to and from Redis")
    sent += misses * run.figure("misses", "64 in flight", "to and from Redis")
    print(f"| network of Redis | {sent * 8 / 1e9:.2f} Gbit/s, both ways together | | | |")
    # The client sends and receives what the worker receives and sends.
    sent = misses * 2 * run.rows["misses: worker and RabbitMQ, both ways"]
    print(f"| network of RabbitMQ | {sent * 8 / 1e9:.2f} Gbit/s, both ways together, without copies between nodes | | | |")


def cost(run, kind, process, in_flight):
    fixed, own = run.costs(kind)[process]
    return fixed / max(1.0, in_flight) + own


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", help="benches/runs/DATE-capacity.json")
    parser.add_argument("--plan", nargs=2, type=int, metavar=("HITS", "MISSES"), help="calls a second")
    parser.add_argument("--use", type=float, default=0.5, help="share of each core that may be busy")
    arguments = parser.parse_args()
    run = Run(arguments.run)
    show_costs(run)
    if arguments.plan:
        plan(run, *arguments.plan, arguments.use)
    else:
        compare(run)
    return 0


sys.exit(main())
