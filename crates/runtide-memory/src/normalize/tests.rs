use std::num::NonZeroU16;

use runtide_core::{ExitStatus, Health, Protocol};

use super::*;
use crate::{Blueprint, MemoryRuntime, RuntimeOptions};

#[test]
fn every_phase_has_a_state() {
    for (phase, expected) in [
        (Phase::Created, InstanceState::Created),
        (Phase::Starting, InstanceState::Starting),
        (Phase::Running, InstanceState::Running),
        (Phase::Paused, InstanceState::Paused),
        (Phase::Restarting, InstanceState::Restarting),
        (Phase::Stopping, InstanceState::Stopping),
        (Phase::Exited, InstanceState::Stopped),
        (Phase::Failed, InstanceState::Failed),
        (Phase::Other, InstanceState::Unknown),
    ] {
        assert_eq!(state(phase), expected);
        assert_eq!(Phase::from(expected), phase);
    }
}

fn running(design: Blueprint) -> (MemoryRuntime, InstanceId) {
    let runtime = MemoryRuntime::with_options(RuntimeOptions::deterministic(0));
    let id = runtime.run(design).unwrap();
    (runtime, id)
}

fn listed(runtime: &MemoryRuntime) -> RawListing {
    runtime.with(|state| state.listing())
}

#[test]
fn ports_are_in_order_and_each_once() {
    let port = |number, protocol| Port::new(NonZeroU16::new(number).unwrap(), protocol);
    let (tcp, udp, web) = (port(53, Protocol::Tcp), port(53, Protocol::Udp), port(80, Protocol::Tcp));
    let given = [web.clone(), udp.clone(), tcp.clone(), web.clone()];
    let (runtime, _) = running(Blueprint::named("dns").with_ports(given));
    let seen = snapshot(&Config::default(), &listed(&runtime), Detail::Summary);
    assert_eq!(seen.instances[0].ports, Some(vec![tcp, udp, web]));
}

#[test]
fn a_stopped_instance_has_no_verdict_no_ports_and_no_addresses() {
    let port = Port::new(NonZeroU16::new(80).unwrap(), Protocol::Tcp);
    let (runtime, id) = running(Blueprint::named("web").with_health(Health::Healthy).with_ports([port.clone()]));
    let seen = |detail| {
        let seen = snapshot(&Config::default(), &listed(&runtime), detail);
        let Instance { state, health, ports, addresses, .. } = Instance::clone(&seen.instances[0]);
        (state, health, ports, addresses)
    };
    for detail in [Detail::Summary, Detail::Full] {
        let alive = |state| (state, Some(Health::Healthy), Some(vec![port.clone()]), Some(vec![]));
        assert_eq!(seen(detail), alive(InstanceState::Running));
        runtime.pause(&id).unwrap();
        assert_eq!(seen(detail), alive(InstanceState::Paused), "frozen, it is still there");
        runtime.unpause(&id).unwrap();
        runtime.stop(&id).unwrap();
        assert_eq!(seen(detail), (InstanceState::Stopped, None, None, None));
        runtime.start(&id).unwrap();
    }
}

#[test]
fn everything_is_known_unless_the_summary_is_lean() {
    let (runtime, id) = running(Blueprint::named("web"));
    runtime.exit(&id, ExitStatus::code(3)).unwrap();
    let listing = listed(&runtime);
    let look = |config: &Config, detail| Instance::clone(&snapshot(config, &listing, detail).instances[0]);
    let (usual, lean) = (Config::default(), Config::default().with_lean_summary());
    let full = look(&usual, Detail::Full);
    assert_eq!(full, look(&usual, Detail::Summary));
    assert_eq!(full, look(&lean, Detail::Full));
    assert_eq!((full.exit, full.restarts), (Some(ExitStatus::code(3)), Some(0)));
    let lean = look(&lean, Detail::Summary);
    assert_eq!((lean.exit, lean.restarts, lean.incarnation), (None, None, None));
    assert_eq!((lean.state, lean.labels), (full.state, full.labels));
}
