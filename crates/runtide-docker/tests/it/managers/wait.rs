//! The end of a run, on a real daemon.

use std::time::Duration;

use runtide_core::{
    ErrorKind, ExitStatus, UnixSignal,
    manager::{RemoveOptions, RestartPolicy, StopOptions},
};

use super::{bench::Bench, exec::LIMIT};

/// Time after which a wait has begun. That cannot be seen from outside, so a test that came before it tries again with more.
const BEGUN: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(8), Duration::from_secs(30)];

#[tokio::test]
async fn the_true_exit_code_comes_when_it_ends_and_at_once_when_it_is_over() {
    let Some(bench) = Bench::new("wait").await else { return };
    let id = bench.create("a", "sleep 0.3; exit 3").await;
    let error = bench.lifecycle().wait(&id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "it never ran: {error}");
    let _ = bench.lifecycle().start(&id).await.unwrap();
    let expected = Some(ExitStatus::code(3).with_oom_killed(false));
    assert_eq!(bench.lifecycle().wait(&id).await.unwrap(), expected);
    assert_eq!(bench.lifecycle().wait(&id).await.unwrap(), expected);
}

#[tokio::test]
async fn an_end_by_removal_is_still_reported() {
    let Some(bench) = Bench::new("wait-remove").await else { return };
    for begun in BEGUN {
        let id = bench.run("a", "sleep 600").await;
        let (exit, removed) = tokio::join!(bench.lifecycle().wait(&id), async {
            tokio::time::sleep(begun).await;
            bench.lifecycle().remove(&id, RemoveOptions::default().with_kill()).await
        });
        let _ = removed.unwrap();
        assert_eq!(bench.lifecycle().wait(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
        match exit {
            Err(late) if late.kind() == ErrorKind::NotFound => {}
            exit => return assert_eq!(exit.unwrap().unwrap().end, ExitStatus::code(137).end),
        }
    }
    panic!("no wait reported the end");
}

#[tokio::test]
async fn an_instance_that_removes_itself_reports_its_end_first() {
    let Some(bench) = Bench::new("wait-auto").await else { return };
    for begun in BEGUN {
        let mut spec = bench.spec("a", "trap 'exit 4' USR1; echo ready; while :; do sleep 0.1; done");
        spec.native.insert("auto_remove".to_owned(), "true".to_owned());
        let id = bench.run_spec(&spec).await;
        bench.says(&id, "ready").await;
        let (exit, killed) = tokio::join!(bench.lifecycle().wait(&id), async {
            tokio::time::sleep(begun).await;
            bench.lifecycle().kill(&id, UnixSignal::USR1).await
        });
        killed.unwrap();
        match exit {
            Err(late) if late.kind() == ErrorKind::NotFound => {}
            exit => return assert_eq!(exit.unwrap().unwrap().end, ExitStatus::code(4).end),
        }
    }
    panic!("no wait reported the end");
}

#[tokio::test]
async fn under_a_restart_policy_the_end_is_that_of_the_awaited_run() {
    let Some(bench) = Bench::new("wait-policy").await else { return };
    let mut spec = bench.spec("a", "sleep 0.2; exit 6");
    spec.restart = RestartPolicy::Always;
    let id = bench.run_spec(&spec).await;
    for _ in 0..5 {
        let exit = bench.lifecycle().wait(&id).await.unwrap();
        assert_eq!(exit.unwrap().end, ExitStatus::code(6).end);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

#[tokio::test]
async fn a_restart_under_a_wait_gives_the_end_of_the_old_run() {
    let Some(bench) = Bench::new("wait-restart").await else { return };
    let id = bench.run("a", "trap 'exit 8' TERM; echo ready; while :; do sleep 0.1; done").await;
    for begun in BEGUN {
        bench.says(&id, "ready").await;
        let (exit, restarted) = tokio::join!(
            // One that began late waits for the next run.
            tokio::time::timeout(begun + LIMIT, bench.lifecycle().wait(&id)),
            async {
                tokio::time::sleep(begun).await;
                let patient = StopOptions::default().with_timeout(LIMIT);
                bench.lifecycle().restart(&id, patient).await
            }
        );
        restarted.unwrap();
        if let Ok(exit) = exit {
            return assert_eq!(exit.unwrap().unwrap().end, ExitStatus::code(8).end);
        }
    }
    panic!("no wait reported the end");
}

#[tokio::test]
async fn an_out_of_memory_end_is_reported_as_such() {
    let Some(bench) = Bench::new("wait-oom").await else { return };
    let mut spec = bench.spec("a", "tail /dev/zero");
    spec.memory_bytes = std::num::NonZeroU64::new(16 << 20);
    let id = match bench.provision().create(&spec).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            assert_eq!(bench.containers(), 0, "what cannot be honoured is not left behind");
            eprintln!("memory cannot be limited here, so the refusal was what was tested: {error}");
            return;
        }
        made => made.unwrap(),
    };
    let _ = bench.lifecycle().start(&id).await.unwrap();
    let exit = tokio::time::timeout(Duration::from_secs(60), bench.lifecycle().wait(&id)).await.unwrap().unwrap();
    assert_eq!(exit, Some(ExitStatus::code(137).with_oom_killed(true)));
}

#[tokio::test]
async fn a_wait_that_is_dropped_leaves_everything_as_it_was() {
    let Some(bench) = Bench::new("wait-drop").await else { return };
    let id = bench.run("a", "sleep 600").await;
    for pause in 0..20 {
        let waited = tokio::time::timeout(Duration::from_millis(pause), bench.lifecycle().wait(&id)).await;
        assert!(waited.is_err());
    }
    assert_eq!(bench.status(&id), "running");
    let _ = bench.lifecycle().stop(&id, StopOptions::default().with_timeout(Duration::ZERO)).await.unwrap();
}
