use std::num::NonZeroU16;

use runtide_core::{ExitStatus, Protocol};

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

fn listing(design: Blueprint) -> Listing {
    let runtime = MemoryRuntime::with_options(RuntimeOptions::deterministic(0));
    let id = runtime.run(design).unwrap();
    runtime.exit(&id, ExitStatus::code(3)).unwrap();
    runtime.with(|state| state.listing())
}

#[test]
fn ports_are_in_order_and_each_once() {
    let port = |number, protocol| Port::new(NonZeroU16::new(number).unwrap(), protocol);
    let (tcp, udp, web) = (port(53, Protocol::Tcp), port(53, Protocol::Udp), port(80, Protocol::Tcp));
    let given = [web.clone(), udp.clone(), tcp.clone(), web.clone()];
    let seen = snapshot(&Config::default(), &listing(Blueprint::named("dns").with_ports(given)), Detail::Summary);
    assert_eq!(seen.instances[0].ports, Some(vec![tcp, udp, web]));
}

#[test]
fn everything_is_known_unless_the_summary_is_lean() {
    let listing = listing(Blueprint::named("web"));
    let look = |config: &Config, detail| Instance::clone(&snapshot(config, &listing, detail).instances[0]);
    let (usual, lean) = (Config::default(), Config::default().with_lean_summary());
    let full = look(&usual, Detail::Full);
    assert_eq!(full, look(&usual, Detail::Summary));
    assert_eq!(full, look(&lean, Detail::Full));
    assert_eq!((full.exit, full.restarts, full.ports.as_deref()), (Some(ExitStatus::code(3)), Some(0), Some(&[][..])));
    let lean = look(&lean, Detail::Summary);
    assert_eq!((lean.exit, lean.restarts, lean.ports, lean.incarnation), (None, None, None, None));
    assert_eq!((lean.state, lean.labels), (full.state, full.labels));
}
