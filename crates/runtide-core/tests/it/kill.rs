//! A process that appends is killed at any moment, and no acknowledged record is lost.
//!
//! The process is this very program, run again for the test `the_process_that_is_killed`. It reports the acknowledged records
//! on its standard error, each line in one write; then SIGKILL ends it, between two instructions of anything: opening,
//! repairing, writing, syncing, the next segment, dropping old ones. The system keeps the writes of a dead process, so this is
//! no power cut: those are in the laws of the log, in `runtide-conformance`, with a disk that forgets.

mod child;
mod log;
mod parent;

use std::time::Duration;

use runtide_core::wal::Durability;

use self::{child::Job, log::Mode};

/// Run by the other tests, with a job, to be killed; without a job it does nothing.
#[test]
fn the_process_that_is_killed() {
    if let Some(job) = Job::given() {
        let endless = child::run(&job);
        panic!("it ends only when it is killed: {endless:?}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    parent::kill_again_and_again(Mode { durability: Durability::Commit, key: None }, 1, 60);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed_and_the_log_is_keyed() {
    parent::kill_again_and_again(Mode { durability: Durability::Commit, key: Some([7; 32]) }, 2, 40);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed_and_commits_are_synced_at_an_interval() {
    let every = Durability::Every(Duration::from_millis(1));
    parent::kill_again_and_again(Mode { durability: every, key: None }, 3, 50);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed_and_commits_are_synced_by_the_system() {
    parent::kill_again_and_again(Mode { durability: Durability::Os, key: None }, 4, 50);
}
