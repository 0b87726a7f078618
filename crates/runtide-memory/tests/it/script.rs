//! The simulated daemon itself, seen from outside.

use std::time::{Duration, SystemTime};

use runtide_core::{
    ErrorKind, ExitStatus, Health, Instance, InstanceId, InstanceState, Labels, UnixSignal, manager::RestartPolicy,
};
use runtide_memory::{AfterRun, Blueprint, FactKind, MemoryRuntime, Reboot, RuntimeOptions};

fn runtime() -> MemoryRuntime {
    MemoryRuntime::with_options(RuntimeOptions::deterministic(0))
}

fn of(runtime: &MemoryRuntime, id: &InstanceId) -> Instance {
    runtime.truth().into_iter().find(|instance| instance.id == *id).unwrap()
}

fn kinds(runtime: &MemoryRuntime, id: &InstanceId) -> Vec<FactKind> {
    runtime.history().into_iter().filter(|fact| fact.id == *id).map(|fact| fact.kind).collect()
}

#[tokio::test(start_paused = true)]
async fn the_same_script_gives_the_same_run() {
    async fn play(seed: u64) -> (Vec<Instance>, usize) {
        let runtime = MemoryRuntime::with_options(RuntimeOptions::deterministic(seed));
        runtime.burst(3, Duration::from_millis(10), AfterRun::Stays).await.unwrap();
        (runtime.truth(), runtime.history().len())
    }
    assert_eq!(play(1).await, play(1).await);
    assert_ne!(play(1).await, play(2).await);
}

#[tokio::test(start_paused = true)]
async fn every_start_is_another_incarnation() {
    let runtime = runtime();
    let id = runtime.create("web").unwrap();
    assert_eq!(id.as_str(), "mem-000001");
    assert_eq!(of(&runtime, &id).incarnation, None);
    let mut incarnations = Vec::new();
    for _ in 0..3 {
        runtime.restart(&id).unwrap();
        incarnations.push(of(&runtime, &id).incarnation.unwrap());
    }
    runtime.pause(&id).unwrap();
    runtime.unpause(&id).unwrap();
    assert_eq!(of(&runtime, &id).incarnation.as_ref(), incarnations.last());
    incarnations.dedup();
    assert_eq!(incarnations.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_recreated_name_is_another_id() {
    let runtime = runtime();
    let first = runtime.run("web").unwrap();
    assert_eq!(runtime.create("web").unwrap_err().kind(), ErrorKind::AlreadyExists);
    let second = runtime.recreate(&first).unwrap();
    assert_ne!(first, second);
    assert_eq!(of(&runtime, &second).name, "web");
    assert_eq!(runtime.start(&first).unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_signal_ends_only_the_instances_that_end_on_it() {
    let runtime = runtime();
    let id = runtime.run(Blueprint::named("web").with_ends_on([UnixSignal::USR1])).unwrap();
    for signal in [UnixSignal::HUP, UnixSignal::TERM] {
        runtime.kill(&id, signal).unwrap();
        assert_eq!(of(&runtime, &id).state, InstanceState::Running);
    }
    runtime.kill(&id, UnixSignal::USR1).unwrap();
    let ended = of(&runtime, &id);
    assert_eq!((ended.state, ended.exit), (InstanceState::Stopped, Some(ExitStatus::signal(UnixSignal::USR1))));
    assert_eq!(runtime.kill(&id, UnixSignal::KILL).unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_process_gets_its_signals_and_its_end_when_it_thaws() {
    let runtime = runtime();
    let signalled = runtime.run("signalled").unwrap();
    let mortal = runtime.run(Blueprint::named("mortal").with_run_length(Duration::from_secs(1))).unwrap();
    runtime.pause(&signalled).unwrap();
    runtime.pause(&mortal).unwrap();
    runtime.kill(&signalled, UnixSignal::TERM).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    for id in [&signalled, &mortal] {
        assert_eq!(of(&runtime, id).state, InstanceState::Paused);
        runtime.unpause(id).unwrap();
        assert_eq!(of(&runtime, id).state, InstanceState::Stopped);
    }
    assert_eq!(of(&runtime, &mortal).exit, Some(ExitStatus::code(0)));
}

#[tokio::test(start_paused = true)]
async fn a_due_change_happens_at_its_time_without_a_call() {
    let runtime = runtime();
    let born = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    let id = runtime
        .run(Blueprint::named("job").with_run_length(Duration::from_millis(30)).with_exit(ExitStatus::code(3)))
        .unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let ended = of(&runtime, &id);
    assert_eq!(ended.exit, Some(ExitStatus::code(3)));
    assert_eq!(ended.finished_at, Some(born + Duration::from_millis(30)));
}

#[tokio::test(start_paused = true)]
async fn a_restart_policy_is_carried_out_with_growing_pauses() {
    let runtime = runtime();
    let policy = RestartPolicy::OnFailure { attempts: Some(2) };
    let id = runtime.run(Blueprint::named("flaky").with_restart(policy)).unwrap();
    for (restarts, pause) in [(1, 100), (2, 200)] {
        runtime.exit(&id, ExitStatus::code(1)).unwrap();
        assert_eq!(of(&runtime, &id).state, InstanceState::Restarting);
        tokio::time::sleep(Duration::from_millis(pause - 1)).await;
        assert_eq!(of(&runtime, &id).state, InstanceState::Restarting);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let again = of(&runtime, &id);
        assert_eq!((again.state, again.restarts), (InstanceState::Running, Some(restarts)));
    }
    runtime.exit(&id, ExitStatus::code(1)).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(of(&runtime, &id).state, InstanceState::Stopped);

    let always = runtime.run(Blueprint::named("always").with_restart(RestartPolicy::Always)).unwrap();
    runtime.stop(&always).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(of(&runtime, &always).state, InstanceState::Stopped, "it was stopped on purpose");
}

#[tokio::test(start_paused = true)]
async fn no_change_is_no_fact() {
    let runtime = runtime();
    let id = runtime.run(Blueprint::named("web").with_health(Health::Healthy)).unwrap();
    let before = runtime.history().len();
    runtime.set_health(&id, Health::Healthy).unwrap();
    runtime.set_labels(&id, Labels::new()).unwrap();
    runtime.rename(&id, "web").unwrap();
    runtime.start(&id).unwrap();
    runtime.set_state(&id, InstanceState::Running).unwrap();
    assert_eq!(runtime.history().len(), before);
}

#[tokio::test(start_paused = true)]
async fn any_state_can_be_reached_and_no_incarnation_is_skipped_on_the_way() {
    use FactKind::{Created, Moved, Started, Stopped};
    let runtime = runtime();
    let id = runtime.create("web").unwrap();
    let mut expected = vec![Created];
    for (state, facts) in [
        (InstanceState::Starting, &[Moved][..]),
        (InstanceState::Running, &[Started]),
        (InstanceState::Stopping, &[Moved]),
        (InstanceState::Restarting, &[Stopped, Moved]),
        (InstanceState::Failed, &[Moved]),
        (InstanceState::Unknown, &[Moved]),
        (InstanceState::Paused, &[Started, Moved]),
    ] {
        runtime.set_state(&id, state).unwrap();
        assert_eq!(of(&runtime, &id).state, state);
        expected.extend(facts);
        assert_eq!(kinds(&runtime, &id), expected, "{state}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_n_incarnations_one_after_the_other() {
    let runtime = runtime();
    let ids = runtime.burst(120, Duration::from_millis(10), AfterRun::Removed).await.unwrap();
    assert!(runtime.truth().is_empty());
    let ends: Vec<_> = runtime.history().into_iter().filter(|fact| fact.kind == FactKind::Stopped).collect();
    assert_eq!(ends.iter().map(|fact| &fact.id).collect::<Vec<_>>(), ids.iter().collect::<Vec<_>>());
    assert_eq!(ends[101].exit, Some(ExitStatus::code(1)));
}

#[tokio::test(start_paused = true)]
async fn a_reboot_stops_instances_on_request_and_starts_those_with_a_restart_policy() {
    let runtime = runtime();
    let run = |name: &str, restart| runtime.run(Blueprint::named(name).with_restart(restart)).unwrap();
    let (no, always) = (run("no", RestartPolicy::No), run("always", RestartPolicy::Always));
    let unless = run("unless", RestartPolicy::UnlessStopped);
    let stopped = run("stopped", RestartPolicy::UnlessStopped);
    runtime.stop(&stopped).unwrap();

    runtime.reboot(Reboot::default());
    assert_eq!(of(&runtime, &no).state, InstanceState::Running, "instances outlive the runtime");

    runtime.reboot(Reboot::default().stopping_instances());
    assert_eq!((of(&runtime, &no).state, of(&runtime, &no).exit), (InstanceState::Stopped, None));
    assert_eq!(of(&runtime, &always).state, InstanceState::Running);
    assert_eq!(of(&runtime, &unless).state, InstanceState::Running);
    assert_eq!(of(&runtime, &stopped).state, InstanceState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_scripted_runtime_shows_one_of_each_kind_within_four_seconds() {
    for seed in 0..20 {
        let handle = MemoryRuntime::scripted(seed);
        let runtime = handle.runtime();
        assert!(runtime.truth().iter().filter(|one| one.state == InstanceState::Running).count() >= 3, "at once");
        let begun = runtime.history().len();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(runtime.history().len() > begun, "within a second");
        tokio::time::sleep(Duration::from_secs(3)).await;
        let history = runtime.history();
        let seen = |what: &str, test: &dyn Fn(&runtide_memory::Fact) -> bool| {
            assert!(history.iter().skip(begun).any(test), "seed {seed}: no {what}");
        };
        seen("start", &|fact| fact.kind == FactKind::Started);
        seen("health", &|fact| fact.kind == FactKind::Changed("health"));
        seen("end with its code", &|fact| fact.kind == FactKind::Stopped && fact.exit == Some(ExitStatus::code(0)));
        seen("removal", &|fact| fact.kind == FactKind::Removed);
        let again = |fact: &runtide_memory::Fact| {
            fact.kind == FactKind::Started
                && kinds(runtime, &fact.id).iter().filter(|kind| **kind == FactKind::Started).count() > 1
        };
        seen("restart", &again);
    }
}

#[tokio::test(start_paused = true)]
async fn a_scripted_runtime_ends_with_its_handle_and_is_the_same_for_its_seed() {
    async fn live(seed: u64) -> Vec<(InstanceId, FactKind)> {
        let handle = MemoryRuntime::scripted(seed);
        tokio::time::sleep(Duration::from_secs(30)).await;
        let runtime = handle.runtime().clone();
        drop(handle);
        let facts = runtime.history();
        tokio::time::sleep(Duration::from_secs(30)).await;
        let running = runtime.truth().iter().filter(|instance| instance.state == InstanceState::Running).count();
        assert!(running >= 4, "{running}");
        facts.into_iter().map(|fact| (fact.id, fact.kind)).collect()
    }
    let one = live(1).await;
    assert!((40..400).contains(&one.len()), "{}", one.len());
    assert_eq!(one, live(1).await);
    assert_ne!(one, live(2).await);
}
