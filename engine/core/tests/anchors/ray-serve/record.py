"""Records what Ray Serve itself decides, for `engine/core/tests/ray_serve.rs` to replay.

    pip install 'ray[serve]==2.60.0'
    pip download --no-deps ray==2.54.1    # and unpack ray/serve/autoscaling_policy.py from it
    python record.py path/to/2.54.1/autoscaling_policy.py

Ray's own functions run here; only their clock is replaced. Two kinds of files are
written beside this one. `decisions-N.csv`: each row is a pass of the control loop with
what it saw and what it decided. `deployment-N.txt`: what happened to a deployment (its
time in ns, requests that wait, and for each replica that runs: id, requests, whether it
ever had one), and when the target changed, through Ray's handle and controller.
"""

import copy
import importlib.util
import random
import sys
import threading
from collections import defaultdict
from pathlib import Path

import ray.serve._private.autoscaling_state as state_module
import ray.serve._private.router as router_module
import ray.serve.autoscaling_policy as current
from ray.serve._private.common import DeploymentHandleSource, DeploymentID, ReplicaID
from ray.serve._private.metrics_utils import InMemoryMetricsStore
from ray.serve.config import AutoscalingConfig

SECOND = 10**9
DEPLOYMENT = DeploymentID(name="deployment", app_name="app")
HERE = Path(__file__).parent


class Clock:
    now_s = 0.0

    def time(self):
        return self.now_s

    monotonic = time


CLOCK = Clock()
for module in (current, state_module, router_module):
    module.time = CLOCK


def legacy(path):
    spec = importlib.util.spec_from_file_location("legacy", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Probe(state_module.DeploymentAutoscalingState):
    """Takes the load from a trace when there is one, else from its metrics."""

    load = None

    def get_total_num_requests(self):
        return super().get_total_num_requests() if self.load is None else self.load


def controller(config, policy):
    state = Probe(DEPLOYMENT)
    state._config = config
    state._policy = policy._apply_autoscaling_config(policy.default_autoscaling_policy)
    state._policy_state = {}
    return state


def parameters(dice):
    least = dice.choice([0, 0, 1, 2])
    chosen = dict(
        min_replicas=least,
        max_replicas=least + dice.choice([2, 5, 20]),
        target_ongoing_requests=dice.choice([1.0, 2.0, 0.7, 3.3]),
        upscale_delay_s=dice.choice([0.0, 0.3, 2.0, 5.0]),
        downscale_delay_s=dice.choice([0.7, 3.0, 8.0]),
    )
    if dice.random() < 0.5:
        chosen["downscale_to_zero_delay_s"] = dice.choice([1.0, 12.0])
    if dice.random() < 0.5:
        chosen["upscaling_factor"] = dice.choice([0.3, 0.5, 2.0])
    if dice.random() < 0.5:
        chosen["downscaling_factor"] = dice.choice([0.01, 0.5])
    return chosen


def heading(name, chosen):
    return " ".join(["#", name, *(f"{key}={value}" for key, value in chosen.items())])


def decisions(number, name, policy):
    dice = random.Random(number)
    chosen = parameters(dice)
    state = controller(AutoscalingConfig(**chosen), policy)
    target = state.apply_bounds(0)
    started = [target] * (1 + dice.choice([0, 4]))
    lines, load = [heading(name, chosen), "time_s,load,ready,desired"], 0.0
    for row in range(120):
        if dice.random() < 0.12:
            load = dice.choice([0.0, float(dice.randint(0, 40)), round(dice.uniform(0, 15), 3)])
        started = started[1:] + [target]
        time_s = row * (0.1 if number % 2 else 0.5)
        CLOCK.now_s, state.load, state._running_replicas = time_s, load, [None] * started[0]
        ready, target = started[0], state.get_decision_num_replicas(target)
        lines.append(f"{time_s:.1f},{load},{ready},{target}")
    (HERE / f"decisions-{number}.csv").write_text("\n".join(lines) + "\n")


class Deployed:
    autoscaling_config = None


def handle(config):
    manager = object.__new__(router_module.RouterMetricsManager)
    manager._handle_id, manager._self_actor_id, manager._deployment_id = "handle", "actor", DEPLOYMENT
    manager._handle_source = DeploymentHandleSource.PROXY
    manager.num_queued_requests, manager.num_requests_sent_to_replicas = 0, defaultdict(int)
    manager.metrics_store, manager._queries_lock = InMemoryMetricsStore(), threading.Lock()
    manager._deployment_config = Deployed()
    manager._deployment_config.autoscaling_config = config
    return manager


def deployment(number, name, policy):
    dice = random.Random(number)
    chosen = parameters(dice) | dict(
        look_back_period_s=dice.choice([30.0, 12.0, 5.0]),
        metrics_interval_s=dice.choice([10.0, 2.5]),
        aggregation_function=dice.choice(["mean", "mean", "max", "min"]),
    )
    config = AutoscalingConfig(**chosen)
    state, manager = controller(config, policy), handle(config)
    target = state.apply_bounds(0)
    record_ns = int(min(config.look_back_period_s * 0.2, config.metrics_interval_s) * SECOND)
    report_ns = int(config.metrics_interval_s * SECOND)
    sent, lines = manager.num_requests_sent_to_replicas, [heading(name, chosen)]
    replicas, known, starts = [], [], 0

    def report():
        state.record_request_metrics_for_handle(copy.deepcopy(manager._get_metrics_report()))

    happens = records = reports = looks = 0
    while (now := min(happens, records, reports, looks)) < 120 * SECOND:
        CLOCK.now_s = now / SECOND
        if now == happens:
            if dice.random() < 0.6:
                lines.append(f"request {now}")
                manager.num_queued_requests += 1
                if manager.should_send_scaled_to_zero_optimized_push(len(known)) and looks > 0:
                    report()
            while len(replicas) < target and dice.random() < 0.7:
                replicas.append((starts, ReplicaID(f"replica{starts}", DEPLOYMENT)))
                starts += 1
            while len(replicas) > target:
                sent.pop(replicas.pop()[1], None)
            for _, replica in replicas:
                # A router gives requests to replicas that it was told of.
                requests = dice.choice([0, 0, 2, 7]) if replica in known else 0
                if requests or replica in sent:
                    sent[replica] = requests
            manager.num_queued_requests = dice.choice([0, 0, 0, 3]) if replicas else dice.choice([0, 4])
            loads = [f"{id}:{sent.get(it, 0)}:{int(it in sent)}" for id, it in replicas]
            lines.append(" ".join(["state", str(now), str(manager.num_queued_requests), *loads]))
            happens += dice.randint(1, 6000) * SECOND // 1000
        elif now == records:
            manager._add_autoscaling_metrics_point()
            records += record_ns
        elif now == reports:
            report()
            reports += report_ns
        else:
            before, known = target, [replica for _, replica in replicas]
            state.update_running_replica_ids(known)
            target = state.get_decision_num_replicas(target)
            if target != before:
                lines.append(f"target {now} {target}")
            looks += SECOND // 10
    (HERE / f"deployment-{number}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    of_looks = legacy(sys.argv[1])
    for number in range(6):
        name, policy = [("ray-serve", current), ("ray-serve-legacy", of_looks)][number // 3]
        decisions(number, name, policy)
        deployment(number, name, policy)
