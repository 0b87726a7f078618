//! The time from the end of one attempt to the next, step by step on the machine alone: without a driver, and without time.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::{
    error::{Error, ErrorKind, Result, Retry},
    event::{Epoch, Gap, RuntimeEventKind},
    options::Detail,
    watch::{
        Flow, Listing, Opened, Signal, SignalBody,
        machine::{Command, Input, Machine, Resume, Setup},
        ring::Entry,
    },
};

const FILE: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);

/// End of one attempt.
#[derive(Clone, Copy)]
enum Attempt {
    /// Nothing listens.
    Unheard,
    /// The daemon answers with an error.
    Denied,
    /// The connection is made, and no answer comes within this deadline.
    Unanswered(Duration),
    /// The link is up for this long, and breaks.
    Up(Duration),
    /// The link is closed as soon as it is open.
    ClosedAtOnce,
    /// The link resumes, which is announced, and breaks before it has caught up.
    BreaksInReplay,
    /// The link resumes, a message of the replay cannot be read, and the listing for it fails.
    LosesInReplay,
}

use Attempt::{BreaksInReplay, ClosedAtOnce, Denied, LosesInReplay, Unanswered, Unheard, Up};

/// A machine that is dialling.
struct Dialling {
    machine: Machine,
    now: Instant,
    /// Times of all dials that a daemon answered.
    answered: Vec<Instant>,
    announced: usize,
}

impl Dialling {
    fn start() -> Self {
        let setup = Setup {
            backend: "test".into(),
            epoch: Epoch::new("e"),
            reports_edges: false,
            max_silence: None,
            max_backoff: 30 * SECOND,
            healthy_after: 6 * SECOND,
            jitter_seed: Some(7),
            detail: Detail::Summary,
            resume: Resume::default(),
        };
        let now = Instant::now();
        let mut dialling = Self { machine: Machine::new(setup, now), now, answered: Vec::new(), announced: 0 };
        assert_eq!(dialling.step(Input::Tick), [Command::Open(None)]);
        dialling
    }

    fn step(&mut self, input: Input<'_>) -> Vec<Command> {
        self.machine.step(self.now, SystemTime::UNIX_EPOCH, input);
        for entry in self.machine.take_entries() {
            let Entry::Event { event, .. } = entry else { continue };
            self.announced += usize::from(matches!(event.kind, RuntimeEventKind::BackendDisconnected { .. }));
        }
        self.machine.take_commands()
    }

    /// Opens the link, and returns the time until it is live; `None`: it is not, for as long as it is up.
    fn open(&mut self, up: Duration) -> Option<Duration> {
        let (opened, mut live) = (self.now, None);
        let mut commands = self.step(Input::Opened(Ok(Opened::Fresh(Gap::Disconnected))));
        loop {
            if commands.contains(&Command::Relist(Detail::Summary)) {
                commands = self.step(Input::Relisted(Ok(Listing::complete(Vec::new()))));
                continue;
            }
            if self.machine.is_live(Detail::Summary) {
                live.get_or_insert(self.now - opened);
            }
            match self.machine.deadline().filter(|at| *at <= opened + up) {
                Some(at) => self.now = at,
                None => break,
            }
            commands = self.step(Input::Tick);
        }
        self.now = opened + up;
        live
    }

    /// Ends the attempt, and returns the time until the next one, which is then under way.
    fn next(&mut self, attempt: Attempt) -> Duration {
        let failed = |kind| Error::new(kind, "test.open", "failed");
        let dialled = self.now;
        let ended: Result<Opened> = match attempt {
            Unheard => Err(failed(ErrorKind::Unavailable).with_retry(Retry::Poll(FILE))),
            Denied => Err(failed(ErrorKind::PermissionDenied)),
            Unanswered(deadline) => {
                self.now += deadline;
                Err(failed(ErrorKind::Timeout))
            }
            Up(_) | ClosedAtOnce => Ok(Opened::Fresh(Gap::Disconnected)),
            BreaksInReplay | LosesInReplay => Ok(Opened::Resumed),
        };
        if !matches!(attempt, Unheard | Unanswered(_)) {
            self.answered.push(dialled);
        }
        let commands = match attempt {
            Up(time) => {
                self.open(time);
                self.step(Input::Broken(failed(ErrorKind::Unavailable)))
            }
            ClosedAtOnce => {
                self.step(Input::Opened(ended));
                self.step(Input::Batch(&mut Vec::new(), Flow::Closed))
            }
            BreaksInReplay => {
                self.step(Input::Opened(ended));
                self.step(Input::Broken(failed(ErrorKind::Unavailable)))
            }
            LosesInReplay => {
                self.step(Input::Opened(ended));
                let mut lost = vec![Signal::new(SignalBody::Lost(Gap::Undecodable))];
                let mut commands = self.step(Input::Batch(&mut lost, Flow::Open));
                while !commands.contains(&Command::Relist(Detail::Summary)) {
                    self.now = self.machine.deadline().expect("the listing");
                    commands = self.step(Input::Tick);
                }
                self.step(Input::Relisted(Err(failed(ErrorKind::PermissionDenied))))
            }
            _ => self.step(Input::Opened(ended)),
        };
        if commands.contains(&Command::Open(None)) {
            return Duration::ZERO;
        }
        let at = self.machine.deadline().expect("another attempt");
        let wait = at - self.now;
        self.now = at;
        assert_eq!(self.step(Input::Tick), [Command::Open(None)]);
        wait
    }

    fn all(&mut self, attempts: &[Attempt]) -> Vec<Duration> {
        attempts.iter().map(|attempt| self.next(*attempt)).collect()
    }

    /// Most answered dials in any minute of the last ten.
    fn busiest_minute(&self) -> usize {
        let late = self.answered.iter().filter(|at| **at + 600 * SECOND >= self.now);
        let after = |from: Instant| self.answered.iter().filter(|at| **at >= from && **at < from + 60 * SECOND).count();
        late.map(|at| after(*at)).max().unwrap_or(0)
    }
}

#[tokio::test(start_paused = true)]
async fn dials_that_reach_no_daemon_are_repeated_soon_whatever_the_outage_lasts() {
    for outage in [3, 12, 40, 3_600] {
        let mut dialling = Dialling::start();
        dialling.next(Up(60 * SECOND));
        let begun = dialling.now;
        while dialling.now - begun < outage * SECOND {
            let wait = dialling.next(Unheard);
            assert!(wait <= FILE && wait >= FILE / 2, "{wait:?}");
        }
        assert_eq!(dialling.open(SECOND), Some(Duration::ZERO), "live at once after {outage} s");
        assert_eq!(dialling.announced, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_short_also_when_there_were_others_before() {
    for apart in [7, 12, 30] {
        let mut dialling = Dialling::start();
        for _ in 0..20 {
            assert_eq!(dialling.next(Up(apart * SECOND)), Duration::ZERO, "{apart} s apart");
            dialling.all(&[Unheard; 40]);
        }
        assert_eq!(dialling.open(SECOND), Some(Duration::ZERO), "{apart} s apart");
    }
    // Three of them within seconds.
    let mut dialling = Dialling::start();
    for up in [60, 1, 1] {
        assert!(dialling.next(Up(up * SECOND)) <= 2 * FILE);
        dialling.all(&[Unheard; 40]);
    }
    assert_eq!(dialling.open(SECOND), Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn failures_of_a_daemon_that_answers_are_spaced() {
    for attempt in [Denied, ClosedAtOnce] {
        let mut dialling = Dialling::start();
        let waits = dialling.all(&[attempt; 200]);
        assert!(waits[0] <= FILE, "{waits:?}");
        assert!(waits[12..].iter().all(|wait| *wait >= 22 * SECOND && *wait <= 30 * SECOND), "{waits:?}");
        assert_eq!(dialling.announced, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_flaps_is_dialled_calmly_and_one_outage() {
    for up in [Duration::from_millis(1), FILE, SECOND, 3 * SECOND, Duration::from_millis(5_900)] {
        let mut dialling = Dialling::start();
        dialling.all(&[Up(up); 300]);
        assert!(dialling.busiest_minute() <= 10, "up for {up:?}: {} in a minute", dialling.busiest_minute());
        if up < 5 * SECOND {
            assert!(dialling.announced <= 5, "up for {up:?}: {} outages", dialling.announced);
        }
    }
    for attempt in [BreaksInReplay, LosesInReplay] {
        let mut dialling = Dialling::start();
        dialling.all(&[attempt; 300]);
        assert!(dialling.busiest_minute() <= 10 && dialling.announced <= 5, "{} outages", dialling.announced);
    }
    // Links that stay up for longer are ten a minute by themselves.
    let mut dialling = Dialling::start();
    dialling.all(&[Up(6 * SECOND); 300]);
    assert!(dialling.busiest_minute() <= 10);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_comes_and_goes_is_not_dialled_in_a_storm() {
    let rounds: [&[Attempt]; 3] =
        [&[Denied, Unheard, Unheard], &[ClosedAtOnce, Unheard], &[Up(FILE), Unheard, Unanswered(SECOND)]];
    for round in rounds {
        let mut dialling = Dialling::start();
        for _ in 0..100 {
            dialling.all(round);
        }
        assert!(dialling.busiest_minute() <= 10, "{} in a minute", dialling.busiest_minute());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_at_a_daemon_that_boots() {
    for deadline in [SECOND / 2, 2 * SECOND, 30 * SECOND] {
        let mut dialling = Dialling::start();
        dialling.next(Up(60 * SECOND));
        for wait in dialling.all(&[Unanswered(deadline); 50]) {
            assert!(wait <= SECOND.saturating_sub(deadline).max(FILE), "{deadline:?}: {wait:?}");
        }
        assert_eq!(dialling.open(SECOND), Some(Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn errors_are_forgotten_once_the_link_is_live() {
    let mut dialling = Dialling::start();
    dialling.all(&[Denied; 50]);
    assert!(dialling.next(Up(SECOND)) <= FILE);
}
