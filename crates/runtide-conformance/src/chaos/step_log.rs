//! The steps of a run, as they were taken: what a failure prints.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, PoisonError},
};

use tokio::time::Instant;

/// Number of steps that are kept, the last ones.
const KEPT: usize = 400;

/// The last steps of a run, each with its time.
#[derive(Debug)]
pub(super) struct StepLog {
    began: Instant,
    steps: Mutex<VecDeque<String>>,
}

impl StepLog {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), steps: Mutex::new(VecDeque::with_capacity(KEPT)) }
    }

    pub(super) fn note(&self, step: impl fmt::Display) {
        let line = format!("{:9.3} s  {step}", self.began.elapsed().as_secs_f64());
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if steps.len() == KEPT {
            steps.pop_front();
        }
        steps.push_back(line);
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
