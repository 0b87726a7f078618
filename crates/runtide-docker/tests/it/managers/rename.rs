//! Renaming, on a real daemon.

use runtide_core::{ErrorKind, manager::Effect};

use super::bench::Bench;

#[tokio::test]
async fn a_container_is_renamed_running_or_not() {
    let Some(bench) = Bench::new("rename").await else { return };
    let (idle, runs) = (bench.create("idle", "exit 0").await, bench.run("runs", "exec sleep 600").await);
    let verbs = bench.lifecycle();
    for (id, before) in [(&idle, "idle"), (&runs, "runs")] {
        let (before, after) = (format!("{}-{before}", bench.prefix), format!("{}-{before}-2", bench.prefix));
        assert_eq!(verbs.rename(id, &before).await.unwrap(), Effect::Unchanged);
        assert_eq!(verbs.rename(id, &after).await.unwrap(), Effect::Changed);
        assert_eq!(bench.inspect(id)["Name"], format!("/{after}"));
        assert_eq!(verbs.rename(id, &after).await.unwrap(), Effect::Unchanged);
    }
    let taken = verbs.rename(&idle, &format!("{}-runs-2", bench.prefix)).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists, "{taken}");
    for hostile in ["", "a", "../a", "a b", "a/b", "a\0b", "a?name=b", "é2", &"x".repeat(300)] {
        let refused = verbs.rename(&idle, hostile).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{hostile:?}: {refused}");
    }
    let gone = verbs.rename(&"runtide-no-such-container".into(), "runtide-other").await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
}
