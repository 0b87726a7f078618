//! A chaos run on the runtime in memory: it holds on a sound backend, and each kind of bug that it is for breaks it.

use std::{sync::Arc, time::Duration};

use runtide_conformance::{
    Clock, Harness,
    chaos::{self, Figures, Plan},
    run::block_on,
};

use super::{
    backend::Broken,
    harness::{EDGES, HINTS, LEAN, MemoryHarness, STATES},
    table::Mutant,
};

/// A run of three virtual minutes.
fn ran(name: &'static str, how: Mutant, seed: u64) -> Result<Figures, chaos::Broken> {
    let run = async {
        let make = Arc::new(move |config, runtime| Arc::new(Broken::new(how, config, runtime)) as Arc<_>);
        let harness: Arc<dyn Harness> = Arc::new(MemoryHarness::with(name, make));
        chaos::run(&harness, Plan::new(seed, Duration::from_secs(180)), |_| {}).await
    };
    block_on(Clock::Virtual, run).unwrap()
}

/// The differences that a run on this mutant finds.
fn found(how: Mutant) -> String {
    match ran(EDGES, how, 1) {
        Ok(figures) => panic!("{how:?} passes: {figures}"),
        Err(broken) => {
            assert!(!broken.log.is_empty() && broken.seed == 1, "{broken}");
            broken.what.join("\n")
        }
    }
}

#[test]
fn a_sound_backend_passes_in_each_dialect() {
    for (name, seed) in [(EDGES, 1), (LEAN, 2), (HINTS, 3), (STATES, 4)] {
        let figures = ran(name, Mutant::Sound, seed).unwrap_or_else(|broken| panic!("{name}: {broken}"));
        assert!(figures.rounds >= 5 && figures.faults.len() >= 7, "{name}: {figures}");
        assert!(figures.proven > 500 || name == HINTS, "{name}: {figures}");
    }
}

#[test]
fn a_backend_that_loses_one_event_is_caught() {
    let found = found(Mutant::LosesOneEventInAHundred);
    assert!(found.contains("each fact of") || found.contains("the fold of the stream"), "{found}");
}

#[test]
fn a_backend_that_leaks_a_connection_is_caught() {
    let found = found(Mutant::LeaksConnections);
    assert!(found.contains("to hold"), "{found}");
}

#[test]
fn a_backend_that_leaves_an_instance_behind_is_caught() {
    let found = found(Mutant::ForgetsAHelper);
    assert!(found.contains("find everything that the run left; found instance '"), "{found}");
}

#[test]
fn a_backend_that_leaves_an_image_behind_is_caught() {
    let found = found(Mutant::ForgetsAnImage);
    assert!(found.contains("find everything that the run left; found image '"), "{found}");
}

#[test]
fn a_backend_whose_networks_have_no_owner_is_caught() {
    let found = found(Mutant::NetworksWithoutLabels);
    assert!(found.contains("network '"), "{found}");
}

#[test]
fn a_backend_whose_calls_hang_is_caught() {
    let found = found(Mutant::NoDeadline);
    assert!(found.contains("had not ended after") && found.contains("its limit is"), "{found}");
}

#[test]
fn a_backend_that_loses_the_output_of_an_exec_is_caught() {
    let found = found(Mutant::LosesTheEndOfAnExec);
    assert!(found.contains("printed ''"), "{found}");
}
