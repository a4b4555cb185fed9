from pathlib import Path

from lab.layout import Layout
from lab.programs import Program, Stage, environment, programs
from lab.topology import SERVICE_RANGES, plan


def all_programs(nodes: int = 2) -> dict[str, Program]:
    todo = programs(plan("lab", nodes), Layout(lab="lab"), python="py", etcd=[(("etcd",), "/data")])
    return {program.name: program for program in todo}


def option(program: Program, name: str) -> list[str]:
    return [
        value
        for flag, value in zip(program.argv, program.argv[1:], strict=False)
        if flag == f"--{name}"
    ]


def test_every_node_has_an_agent_and_a_pod_host() -> None:
    assert set(all_programs()) == {
        *("etcd", "ipam", "endpoints", "slicer"),
        *("agent-node-1", "podhost-node-1", "agent-node-2", "podhost-node-2"),
    }


def test_agents_start_when_the_services_serve_and_those_when_etcd_does() -> None:
    todo = all_programs()

    assert todo["etcd"].stage is Stage.STORE
    assert {todo[name].stage for name in ("ipam", "endpoints", "slicer")} == {Stage.SERVICES}
    assert todo["agent-node-2"].stage is Stage.NODES
    assert Stage.STORE < Stage.SERVICES < Stage.NODES


def test_agents_ask_where_the_services_listen() -> None:
    todo = all_programs()
    agent = todo["agent-node-1"]

    for flag, service in (("registry", "endpoints"), ("ipam", "ipam"), ("slicer", "slicer")):
        assert option(agent, flag)[0] in option(todo[service], "listen")
    assert option(todo["slicer"], "advertise")[0] in option(todo["slicer"], "listen")


def test_agents_route_as_the_lab_was_asked_to() -> None:
    agent = all_programs()["agent-node-1"]
    assert (option(agent, "routing"), option(agent, "external-mode")) == (["native"], ["snat"])
    network = plan("lab", 1, routing="vxlan", external_mode="dsr")
    todo = programs(network, Layout(lab="lab"), python="py", etcd=[(("etcd",), "/data")])
    (agent,) = [program for program in todo if program.name == "agent-node-1"]
    assert (option(agent, "routing"), option(agent, "external-mode")) == (["vxlan"], ["dsr"])


def test_no_two_agents_share_a_path_or_an_address() -> None:
    todo = all_programs(3)
    flags = ("state-dir", "socket", "listen", "pin-dir", "node-ipv4", "node-ipv6", "netns")
    for flag in flags:
        values = {option(todo[f"agent-node-{number}"], flag)[0] for number in (1, 2, 3)}
        assert len(values) == 3, flag


def test_unix_socket_paths_fit_the_kernel_for_the_longest_names() -> None:
    layout = Layout(lab="a" * 15)

    paths = [
        layout.admin_socket("endpoints"),
        layout.node("node-200").podhost_socket,
        layout.node("node-200").agent_admin,
    ]
    assert all(len(str(path)) < 108 for path in paths)


def test_neither_proxies_nor_the_callers_settings_are_inherited() -> None:
    inherited = {
        "PATH": "/bin",
        "HTTPS_PROXY": "http://proxy",
        "http_proxy": "http://proxy",
        "DELTAPLANE_LISTEN": "x",
        "ETCD_DATA_DIR": "/elsewhere",
    }

    assert environment(inherited) == {"PATH": "/bin", "no_proxy": "*", "PYTHONUNBUFFERED": "1"}


def test_pins_are_apart_from_the_files() -> None:
    assert Layout(lab="lab").node("node-1").pins == Path("/sys/fs/bpf/deltaplane/lab/node-1")


def test_a_node_has_one_control_group_for_its_pod_host_and_its_agent() -> None:
    network = plan("lab", 2, cgroup="/groups/lab")
    todo = programs(network, Layout(lab="lab"), python="py", etcd=[(("etcd",), "/data")])
    known = {program.name: program for program in todo}
    for name in ("podhost-node-2", "agent-node-2"):
        assert option(known[name], "cgroup") == ["/groups/lab/node-2"]
    assert option(all_programs()["podhost-node-2"], "cgroup") == []
    assert option(all_programs()["agent-node-2"], "cgroup") == ["none"]


def test_the_registry_knows_the_range_of_services() -> None:
    assert tuple(option(all_programs()["endpoints"], "service-range")) == SERVICE_RANGES


def test_an_agent_knows_its_zone() -> None:
    network = plan("lab", 2, zones=2)
    todo = programs(network, Layout(lab="lab"), python="py", etcd=[(("etcd",), "/data")])
    known = {program.name: program for program in todo}
    assert option(known["agent-node-2"], "zone") == ["zone-2"]
    assert option(all_programs()["agent-node-2"], "zone") == [""]


def test_replicas_have_addresses_of_their_own_and_agents_know_them_all() -> None:
    network = plan("lab", 1, replicas=2)
    etcd = [(("etcd",), f"/data/{number}") for number in range(network.members)]
    todo = {
        program.name: program
        for program in programs(network, Layout(lab="lab"), python="py", etcd=etcd)
    }

    assert {name for name in todo if "etcd" in name} == {"etcd", "etcd-2", "etcd-3"}
    assert len({todo[name].health for name in ("etcd", "etcd-2", "etcd-3")}) == 3
    for flag, service in (("registry", "endpoints"), ("ipam", "ipam"), ("slicer", "slicer")):
        listens = [option(todo[name], "listen") for name in (service, f"{service}-2")]
        assert option(todo["agent-node-1"], flag) == [",".join(each[0] for each in listens)]
        assert not set(listens[0]) & set(listens[1])
        assert option(todo[service], "etcd") == ["127.0.0.1:2379,127.0.0.1:2479,127.0.0.1:2579"]


def in_memory_programs() -> dict[str, Program]:
    layout = Layout(lab="lab", root=Path("/tmp/deltaplane-12345678"))
    network = plan("lab", 2, in_memory=True)
    todo = programs(network, layout, python="py", etcd=[(("etcd",), "/data")])
    return {program.name: program for program in todo}


def test_in_memory_nobody_listens_on_a_network_and_nothing_serves_in_pods() -> None:
    todo = in_memory_programs()
    assert set(todo) == {"etcd", "ipam", "endpoints", "slicer", "agent-node-1", "agent-node-2"}
    for program in todo.values():
        assert all(where.startswith("unix:/tmp/") for where in option(program, "listen"))
        assert not any("198.18." in text or "127.0.0.1" in text for text in program.argv)
    assert todo["etcd"].health == "unix:/tmp/deltaplane-12345678/lab/etcd/etcd:0"


def test_in_memory_agents_ask_where_the_services_listen_and_say_what_they_are() -> None:
    todo = in_memory_programs()
    agent = todo["agent-node-1"]
    for flag, service in (("registry", "endpoints"), ("ipam", "ipam"), ("slicer", "slicer")):
        assert option(agent, flag)[0] in option(todo[service], "listen")
    assert option(agent, "data-plane") == ["memory"]
    assert "--insecure" in agent.argv
    assert not {"--netns", "--pin-dir", "--cgroup"} & set(agent.argv)
    assert option(all_programs()["agent-node-1"], "data-plane") == []
